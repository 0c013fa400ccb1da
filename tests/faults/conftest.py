"""The drill's finished workspace, which is made once for all processes; every fault gets a copy."""

import os
import shutil
import signal
from collections import Counter
from pathlib import Path

import pytest
from filelock import FileLock

from tests.clone import SHORT, Clone
from tests.conftest import ROOT
from tests.faults.drill import Copy, mounted
from tests.tiny import save_tiny_checkpoint

# Whoever starts the tests in the background of a shell lets them, and all that they start, ignore these.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session")
def whole(tmp_path_factory) -> Clone:
    """A clone on the tiny model in which everything has run and is committed. It is copied, never changed."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # which the processes have in common
    with FileLock(folder / "drill.lock"):
        if not (folder / "drill/whole").exists():
            model = save_tiny_checkpoint(folder / "drill/tiny-t5", ROOT / "embedded/pico-t5")
            clone = Clone(folder / "drill/unfinished")
            clone.set(SHORT | {"model.name": str(model), "train.epochs": 4})
            clone("dvc", "repro")
            clone.commit("First run")
            clone.folder.rename(folder / "drill/whole")
    return Copy.of(folder / "drill/whole", folder / f"drill/{os.getpid()}-home")


@pytest.fixture
def clone(whole, tmp_path) -> Copy:
    """A copy of the finished workspace, for one fault."""
    return Copy.of(shutil.copytree(whole.folder, tmp_path / "clone", symlinks=True), tmp_path / "home")


@pytest.fixture
def small_disk(tmp_path):
    """Makes a file system of some bytes in a folder; `resize` gives it other ones."""
    with mounted(tmp_path / "disk") as disk:
        yield disk


def pytest_terminal_summary(terminalreporter) -> None:
    """How many faults there were, by file."""
    reports = [report for key in ("passed", "failed") for report in terminalreporter.stats.get(key, [])]
    faults = Counter(
        Path(report.location[0]).stem.removeprefix("test_")
        for report in reports
        if report.when == "call" and report.location[0].startswith("tests/faults/")
    )
    if faults:
        families = ", ".join(f"{name.removesuffix('_faults')} {count}" for name, count in sorted(faults.items()))
        terminalreporter.write_line(f"{faults.total()} faults: {families}")
