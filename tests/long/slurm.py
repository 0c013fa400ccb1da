"""A real Slurm with two nodes, on this machine and in a folder of its own."""

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

# Debian keeps the daemons where only root's PATH leads.
PATH = os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/usr/local/sbin"])
COMMANDS = ("sbatch", "sinfo", "squeue", "scancel", "slurmctld", "slurmd", "munged")
PACKAGES = "slurm-wlm and munge"
NODES = ("n1", "n2")
USER = pwd.getpwuid(os.getuid()).pw_name


def missing_commands() -> list[str]:
    return [command for command in COMMANDS if not shutil.which(command, path=PATH)]


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for sock in sockets:
        sock.bind(("127.0.0.1", 0))
    ports = [sock.getsockname()[1] for sock in sockets]
    for sock in sockets:
        sock.close()
    return ports


class Slurm:
    """The daemons run in the foreground as children of this process, so that it can stop exactly those it started."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.conf = folder / "slurm.conf"
        self.daemons: list[subprocess.Popen] = []

    def __enter__(self) -> "Slurm":
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        self.folder.chmod(0o711)  # munged wants a folder that all can enter, and only its owner can write to
        (self.folder / "state").mkdir()
        self.write_conf()
        key = self.folder / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(128))
        munge = {name: f"--{name}-file={self.folder / f'munge.{name}'}" for name in ("key", "log", "pid", "seed")}
        self.spawn("munged", "--foreground", f"--socket={self.socket}", *munge.values())
        self.wait_for(self.socket.exists, 20)
        self.spawn("slurmctld", "-D", "-f", str(self.conf))
        for node in NODES:
            self.spawn("slurmd", "-D", "-N", node, "-f", str(self.conf))
        self.wait_for(
            lambda: self.command("sinfo", "--noheader", "--Node", "--format=%T").split() == ["idle"] * len(NODES), 60
        )

    @property
    def socket(self) -> Path:
        return self.folder / "munge.socket"

    def write_conf(self) -> None:
        controller, *nodes = free_ports(1 + len(NODES))
        host, folder = socket.gethostname().split(".")[0], self.folder
        lines = [
            "ClusterName=test",
            f"SlurmctldHost={host}(127.0.0.1)",
            f"SlurmctldPort={controller}",
            f"SlurmUser={USER}",
            f"SlurmdUser={USER}",
            "AuthType=auth/munge",
            f"AuthInfo=socket={self.socket}",
            # No control groups: a container may have none to give.
            "ProctrackType=proctrack/linuxproc",
            "TaskPlugin=task/none",
            "MpiDefault=none",
            "ReturnToService=2",
            "KillWait=1",
            # Nodes are what this file says they are, whatever the machine has.
            "SlurmdParameters=config_overrides",
            f"StateSaveLocation={folder}/state",
            f"SlurmdSpoolDir={folder}/%n",
            f"SlurmctldPidFile={folder}/slurmctld.pid",
            f"SlurmdPidFile={folder}/%n.pid",
            *(
                f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=1"
                for node, port in zip(NODES, nodes, strict=True)
            ),
            f"PartitionName=all Nodes={','.join(NODES)} Default=YES MaxTime=INFINITE State=UP",
        ]
        self.conf.write_text("\n".join(lines) + "\n")

    def spawn(self, *command: str) -> None:
        log = (self.folder / f"{command[0]}-{len(self.daemons)}.log").open("wb")
        # A session of its own: Ctrl-C in the terminal is for pytest, which then stops the daemons in order.
        self.daemons.append(
            subprocess.Popen(command, env=self.environment(), stdout=log, stderr=log, start_new_session=True)
        )
        log.close()

    def stop(self) -> None:
        if len(self.daemons) > 1:
            self.command("scancel", "--full", "--user", USER, ok=False)
            with contextlib.suppress(AssertionError):  # the daemons are stopped all the same
                self.wait_for(lambda: not self.command("squeue", "--noheader", ok=False).strip(), 30)
        for daemon in reversed(self.daemons):
            daemon.send_signal(signal.SIGTERM)
            try:
                daemon.wait(20)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        self.daemons.clear()

    def wait_for(self, condition, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not condition():
            dead = [daemon.args[0] for daemon in self.daemons if daemon.poll() is not None]
            assert not dead, f"{dead} ended:\n{self.logs()}"
            assert time.monotonic() < end, f"no answer after {seconds} s:\n{self.logs()}"
            time.sleep(0.2)

    def logs(self) -> str:
        return "\n".join(f"{log.name}:\n{log.read_text(errors='replace')[-3000:]}" for log in self.folder.glob("*.log"))

    def environment(self, **more: str) -> dict[str, str]:
        # None of a Slurm job's own variables, should the tests themselves run in one.
        env = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "SBATCH"))}
        return env | {"PATH": PATH, "SLURM_CONF": str(self.conf)} | more

    def command(self, *command: str, ok: bool = True) -> str:
        """Run a command of Slurm's; returns what it printed."""
        done = subprocess.run(
            command, env=self.environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60
        )
        # sinfo fails until the controller listens.
        assert not ok or done.returncode == 0 or command[0] == "sinfo", done.stdout
        return done.stdout

    def tasks(self, job: str) -> dict[int, tuple[str, str]]:
        """State and node of each task of an array job, by its number, as far as they were given one."""
        shown = self.command("scontrol", "--oneliner", "show", "job", job)
        fields = [dict(field.partition("=")[::2] for field in line.split()) for line in shown.splitlines()]
        # A line with several numbers is for the tasks that still wait.
        return {
            int(task["ArrayTaskId"]): (task["JobState"], task.get("NodeList", ""))
            for task in fields
            if task.get("ArrayTaskId", "").isdecimal()
        }

    def wait(self, job: str, seconds: float) -> dict[int, tuple[str, str]]:
        """Wait until an array job has ended; returns its `tasks`."""
        self.wait_for(lambda: not self.command("squeue", "--noheader", "--jobs", job).strip(), seconds)
        return self.tasks(job)


def task_processes(folder: Path, task: int) -> dict[int, str]:
    """Processes of one array task that works in `folder`: command lines by pid."""
    found = {}
    for proc in Path("/proc").glob("[0-9]*"):
        try:
            environment = (proc / "environ").read_bytes().split(b"\0")
            if f"SLURM_ARRAY_TASK_ID={task}".encode() in environment and (proc / "cwd").readlink() == folder.resolve():
                found[int(proc.name)] = (proc / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
        except OSError:
            pass  # it ended meanwhile, or is another user's
    return found
