"""Clones of the repository in which the real DVC runs the real stages, on a model too small to mean anything."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.tiny import save_tiny_checkpoint

# What keeps a run short: the shortest useful prompts, one epoch.
SHORT = ("template.max_tokens=80", "train.epochs=1", "train.batch_size=32", "compare.resamples=200")
OUTS = ("data", "metrics", "models", "plots", "predictions", "report")


class Clone:
    """A clone of what git would commit, with a home folder of its own: no git identity, no cache of another run."""

    def __init__(self, folder: Path, source: Path | None) -> None:
        self.folder, self.source = folder, source
        self.home = folder.with_name(folder.name + "-home")
        self.home.mkdir(parents=True)
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, stdout=subprocess.PIPE
        )
        for name in filter(None, listed.stdout.decode().split("\0")):
            if (ROOT / name).exists():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, folder / name)
        self("git", "init", "--quiet")
        self("git", "add", "--all")
        identity = ("-c", "user.name=test", "-c", "user.email=test@localhost")
        self("git", *identity, "commit", "--quiet", "--message", "clone")

    def __call__(self, *command: str, ok: bool = True, **environment: str) -> str:
        """Run a command in the clone, as in a shell with the environment activated; returns all it printed."""
        env = {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(self.home),
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",  # tiny tensors: two threads would wait for each other
            **({"PUBMEDQA_SOURCE": str(self.source)} if self.source else {}),
            **environment,
        }
        result = subprocess.run(
            command, cwd=self.folder, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        assert not ok or result.returncode == 0, result.stdout
        return result.stdout

    def exp_run(self, *sets: str, targets: tuple[str, ...] = ()) -> str:
        """`dvc exp run -S …`, which needs a git identity where it changes a tracked file."""
        identity = {
            f"GIT_{who}_{what}": "test@localhost" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
        }
        options = [part for value in sets for part in ("--set-param", value)]
        return self("dvc", "exp", "run", *options, *targets, **identity)

    def bytes(self) -> dict[str, bytes]:
        """Every output that must not vary, by path."""
        paths = [path for out in OUTS for path in (self.folder / out).rglob("*") if path.is_file()]
        return {str(path.relative_to(self.folder)): path.read_bytes() for path in paths}


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Path:
    """A checkpoint with FLAN-T5's tokenizer, where that is at hand, and two tiny layers."""
    real = ROOT.parent / "shared" / "flan-t5-small"
    return save_tiny_checkpoint(tmp_path_factory.mktemp("tiny-t5"), real if real.exists() else None)


@pytest.fixture(scope="session")
def new_clone(tmp_path_factory, real_file):
    def make(name: str) -> Clone:
        return Clone(tmp_path_factory.mktemp(name) / "clone", real_file)

    return make


@pytest.fixture(scope="session")
def model_params(tiny_model) -> tuple[str, ...]:
    return (f"model.name={tiny_model}", "model.revision=null")


@pytest.fixture(scope="session")
def finished(new_clone, model_params) -> Clone:
    """A clone in which the whole pipeline has run, by the command that the README gives."""
    clone = new_clone("finished")
    clone.output = clone.exp_run(*model_params, *SHORT)
    return clone
