"""Clones of the repository in which the real DVC runs the real stages, on a model too small to mean anything."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from ruamel.yaml import YAML

from tests.conftest import ROOT, set_params

OUTS = [
    "data/clean",
    "data/raw",
    "data/split",
    "metrics",
    "models",
    "plots",
    "predictions",
    "evaluation",
    "comparison",
    "release",
]
# What keeps a run short: the shortest useful prompts, one epoch, big batches, one thread for tiny tensors.
SHORT = {
    "data.name": "synthetic abstracts",
    "data.source": "embedded/ori_pqal.json",
    "data.sha256": YAML(typ="safe").load(ROOT / "experiments/embedded.yaml")["data.sha256"],
    "data.test_ids_sha256": YAML(typ="safe").load(ROOT / "experiments/embedded.yaml")["data.test_ids_sha256"],
    "model.revision": None,
    "model.threads": 1,
    "template.max_tokens": 64,
    "train.epochs": 1,
    "train.batch_size": 64,
    "evaluate.batch_size": 64,
    "compare.resamples": 200,
}


class Clone:
    """A clone of what git would commit, with a home folder of its own: no git identity, no cache of another run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder.with_name(folder.name + "-home")
        self.home.mkdir(parents=True)
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, stdout=subprocess.PIPE
        )
        for name in filter(None, listed.stdout.decode().split("\0")):
            if (ROOT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, folder / name)
        self("git", "init", "--quiet")
        self.commit("clone")

    def commit(self, message: str) -> None:
        self("git", "add", "--all")
        identity = ("-c", "user.name=test", "-c", "user.email=test@localhost")
        self("git", *identity, "commit", "--quiet", "--message", message)

    def environment(self, **variables: str) -> dict[str, str]:
        """That of a shell with the virtual environment activated, and none of this machine's own settings."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        # Several tests run at a time: threads that wait must not use a core.
        waiting = {"OMP_WAIT_POLICY": os.environ["OMP_WAIT_POLICY"]}
        return {"PATH": path, "HOME": str(self.home), "HF_HUB_OFFLINE": "1", **waiting, **variables}

    def start(self, *command: str, **variables: str) -> subprocess.Popen:
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.environment(**variables),
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def __call__(self, *command: str, ok: bool = True, **variables: str) -> str:
        """Run a command in the clone to its end; returns all that it printed."""
        process = self.start(*command, **variables)
        printed, _ = process.communicate()
        assert not ok or process.returncode == 0, printed
        return printed

    def set(self, values: dict[str, object]) -> None:
        """Set parameters, {"data.source": "x"}."""
        set_params(self.folder, values)

    def status(self, *targets: str) -> set[str]:
        """Stages that are not up to date."""
        shown = self("dvc", "status", "--json", *(targets or ("dvc.yaml",)))
        return set(YAML(typ="safe").load(shown))

    def bytes(self) -> dict[str, bytes]:
        """Every output that must not vary, by path."""
        paths = [path for out in OUTS for path in (self.folder / out).rglob("*") if path.is_file()]
        return {str(path.relative_to(self.folder)): path.read_bytes() for path in paths}


def ran(printed: str) -> list[str]:
    """The stages whose commands DVC ran."""
    return [line.split("'")[1] for line in printed.splitlines() if line.startswith("Running stage '")]
