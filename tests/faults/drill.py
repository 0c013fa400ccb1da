"""How a fault is injected and judged: one sentence, nothing lost or half-written, and the same bytes afterwards."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.clone import Clone, ran


class Copy(Clone):
    """A copy of a finished workspace."""

    @classmethod
    def of(cls, folder: Path, home: Path) -> Copy:
        clone = cls.__new__(cls)
        clone.folder, clone.home = Path(folder), home
        home.mkdir(exist_ok=True)
        return clone

    def refused(self, *command: str, says: tuple[str, ...], **variables: str) -> str:
        """Run a command that must fail as users should see it; returns its sentence."""
        process = self.start(*command, **variables)
        printed, _ = process.communicate()
        assert process.returncode, printed
        return sentence(printed, *says)

    def unharmed(self, whole: Clone, but: tuple[str, ...] = ()) -> None:
        """Every output is whole or missing, except below `but`, which the fault itself has changed."""
        wanted = whole.bytes()
        for path, content in self.bytes().items():
            if not path.startswith(but or ("\0",)):
                assert content == wanted.get(path), f"{path} is neither whole nor absent"
        assert list(self.folder.glob("data/**/.*partial")) == []

    def recovers(self, whole: Clone, *targets: str) -> list[str]:
        """Without the fault, one command brings everything back, to the bit; returns the stages that ran."""
        printed = self("dvc", "repro", *targets)
        assert "Traceback" not in printed
        assert self.bytes() == whole.bytes()
        return ran(printed)


def sentence(printed: str, *says: str) -> str:
    """This project's one sentence among what was printed, which must have some words; DVC may add its own."""
    assert "Traceback" not in printed, printed
    lines = {line for line in printed.splitlines() if line.startswith("error: ")}
    assert len(lines) == 1, printed
    (line,) = lines
    assert all(word in line for word in says), line
    return line


class Disk:
    """A file system in memory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def remount(self, options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", str(self.folder)], check=True)

    def leave(self, free: int) -> None:
        """Let so many bytes be free; it counts in pages."""
        system = os.statvfs(self.folder)
        used = (system.f_blocks - system.f_bfree) * system.f_frsize
        self.remount(f"size={used + free}")


@contextmanager
def mounted(folder: Path) -> Iterator[Disk]:
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256m", "tmpfs", str(folder)], capture_output=True)
    if made.returncode:
        pytest.skip(f"needs the right to mount a file system: {made.stderr.decode().strip()}")
    try:
        yield Disk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def wait_for(condition: Callable[[], object], process: subprocess.Popen | None = None, seconds: float = 300) -> None:
    """Wait until a condition is true. A process that is given must not end before."""
    end = time.monotonic() + seconds
    while not condition():
        assert process is None or process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end
        time.sleep(0.01)


def commands(group: int) -> dict[int, str]:
    """Command lines of a session's processes, by pid. DVC takes one for alive that has ended, until it is reaped."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[3]) == group:
                found[int(stat.parent.name)] = (stat.parent / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except (OSError, ValueError):
            continue  # it has ended in the meantime
    return found


def send(process: subprocess.Popen, number: signal.Signals, victim: str | None) -> None:
    """Send a signal to all processes of a session, as a terminal does, or to the first whose command has `victim`."""
    if victim is None:
        os.killpg(process.pid, number)
    else:
        os.kill(next(pid for pid, command in sorted(commands(process.pid).items()) if victim in command), number)
