"""Run a named experiment in a folder of its own, and record it for DVC: python -m experiments study --jobs 2

experiments/NAME.yaml holds what it changes in params.yaml, as `key.path: value`; `include:` names other such files that
come first. It runs in experiments/NAME/, a clone of this repository with the same DVC cache, which git ignores: your
workspace stays as it is, and an interrupted experiment goes on where it was. At the end it is the DVC experiment NAME.
"""

import argparse
import os
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock, Timeout
from ruamel.yaml import YAML

from experiments.runs import DVC, run_python
from peftqa.config.params import check_params, read_yaml
from peftqa.errors import UserError
from stages import workspace

FOLDER = Path("experiments")
# Question and abstract; made up, in the words of the embedded data.
EXAMPLE = (
    "Does aspirin reduce pain in nursing home residents?",
    "We gave aspirin or placebo to 120 nursing home residents. Pain was lower with aspirin (14 versus 35, p = 0.002).",
)
# What a finished pipeline changes among the files that git tracks; the experiment's own must not be replaced.
RESULTS = ("dvc.lock", "metrics/")
# An experiment is a commit, which needs an author; a newcomer may have no git identity yet.
IDENTITY = {
    f"GIT_{role}_{key}": value
    for role in ("AUTHOR", "COMMITTER")
    for key, value in {"NAME": "pubmedqa-peft", "EMAIL": "pubmedqa-peft@localhost"}.items()
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    known = sorted(path.stem for path in FOLDER.glob("*.yaml"))
    parser.add_argument("name", help=f"of a file in {FOLDER}/; there are: {', '.join(known)}")
    parser.add_argument("--jobs", type=int, default=1, help="how many runs at a time (default: 1)")
    options = parser.parse_args()
    overrides = read_overrides(options.name)
    folder = FOLDER / options.name
    try:
        with FileLock(f"{folder}.lock", timeout=0):
            prepare(folder, overrides)
            if "data.source" in overrides:
                os.environ.pop("PUBMEDQA_SOURCE", None)  # it would lead to other data than the experiment's
            run_python("-m", "experiments.runs", "--jobs", str(options.jobs), folder=folder, **IDENTITY)
            dvc(folder, "repro")
            record(folder, options.name)
    except Timeout:
        raise UserError(f"experiment {options.name} is running already; wait for it, or end that process.") from None
    print(
        f"\nReport:         {folder / 'report/index.html'}"
        f"\nEvery number:   (cd {folder} && dvc metrics show)    once you have typed: . .venv/bin/activate"
        f"\nIts files:      {folder}/    (delete it when you have no more use for it; DVC's cache keeps the results)"
    )
    adapters = sorted((folder / "release").iterdir())
    if adapters:
        print(f"\nAsk it a question of your own:\npython -m peftqa ask --adapter {adapters[0]} {shlex.join(EXAMPLE)}")


def read_overrides(name: str) -> dict[str, object]:
    """What experiments/NAME.yaml changes, the files that it includes first."""
    path = FOLDER / f"{name}.yaml"
    if not path.exists():
        known = ", ".join(sorted(other.stem for other in FOLDER.glob("*.yaml")))
        raise UserError(f"there is no {path}; there are: {known}.")
    values = read_yaml(path)
    if not isinstance(values, dict):
        raise UserError(f"{path} must hold lines like `train.epochs: 6`.")
    included = values.pop("include", [])
    merged: dict[str, object] = {}
    for other in [included] if isinstance(included, str) else included:
        merged |= read_overrides(other)
    return merged | values


def prepare(folder: Path, overrides: dict[str, object]) -> None:
    """Make `folder` this workspace as git sees it, with the overrides in params.yaml; what ran there before stays."""
    if not (folder / ".git").exists():
        git("clone", "--quiet", "--no-checkout", ".", str(folder))
    git("fetch", "--quiet", "origin", "HEAD", cwd=folder)
    git("reset", "--quiet", "--soft", git("rev-parse", "HEAD"), cwd=folder)
    ours = {name for name in git("ls-files", "-z", "-co", "--exclude-standard").split("\0") if Path(name).is_file()}
    theirs = set(git("ls-files", "-z", "-co", "--exclude-standard", cwd=folder).split("\0"))
    for name in theirs - ours - {""}:
        if not name.startswith(RESULTS):
            (folder / name).unlink(missing_ok=True)
    for name in ours:
        target, content = folder / name, Path(name).read_bytes()
        if target.exists() and (name.startswith(RESULTS) or name == "params.yaml" or target.read_bytes() == content):
            continue  # unchanged files keep their time stamps, by which DVC knows that it need not hash them
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        target.chmod(Path(name).stat().st_mode)
    git("add", "--all", cwd=folder)
    write_params(folder / "params.yaml", overrides)
    # In the clone's own configuration, so that nothing tracked names a path of this machine.
    dvc(folder, "cache", "dir", "--local", str(Path(".dvc/cache").resolve()))


def write_params(path: Path, overrides: dict[str, object], base: Path | str = workspace.PARAMS) -> None:
    """params.yaml of this workspace, or a text like it, with the overrides.

    Raises UserError for a key or a value that it may not have.
    """
    yaml = YAML()
    params = yaml.load(base)
    for key, value in overrides.items():
        *groups, last = key.split(".")
        group = params
        for name in groups:
            group = group.get(name)
            if not isinstance(group, dict):
                raise UserError(
                    f"{key}: params.yaml has no group {name!r}; a new key is a group, `adapters.mine: {{method: ...}}`."
                )
        group[last] = value
    partial = path.with_name("params.yaml.partial")
    yaml.dump(params, partial)
    check_params(read_yaml(partial), "params.yaml with the experiment's changes")
    if path.exists() and path.read_bytes() == partial.read_bytes():
        partial.unlink()
    else:
        partial.replace(path)


def record(folder: Path, name: str, stages: Sequence[str] = ()) -> None:
    """Save what the folder holds as a DVC experiment of its HEAD in this repository; one of that name is replaced.

    stages: those that have run, if not all.
    """
    untracked = git("ls-files", "-z", "--others", "--exclude-standard", "metrics", cwd=folder).split("\0")
    included = [f"-I{path}" for path in untracked if path]
    dvc(folder, "exp", "save", "--quiet", "--force", "--name", name, *included, *stages)
    head = git("rev-parse", "HEAD", cwd=folder)
    ref = f"refs/exps/{head[:2]}/{head[2:]}/{name}"  # where DVC keeps an experiment of this commit
    git("fetch", "--quiet", str(folder), f"+{ref}:{ref}")


def dvc(folder: Path, *arguments: str) -> None:
    run_python(*DVC[1:], *arguments, folder=folder, **IDENTITY)


def git(*arguments: str, cwd: Path = Path()) -> str:
    try:
        result = subprocess.run(["git", *arguments], cwd=cwd, env=os.environ | IDENTITY, capture_output=True, text=True)
    except FileNotFoundError:
        raise UserError("git is not there; install it (on Debian: apt-get install git).") from None
    if result.returncode:
        raise UserError(f"git {arguments[0]} failed: {result.stderr.strip()}")
    return result.stdout.strip()


if __name__ == "__main__":
    workspace.run_stage(main)
