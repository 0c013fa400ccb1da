"""Prepare the clone of this repository in which an experiment runs, and record a DVC experiment from it.

The clone gets three kinds of files: those that git tracks, as they are in the workspace; the experiment's own files in
experiments/; and dvc.lock and the pipeline's results in metrics/. It does not get other files: they may be private, and
all files in the clone are committed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from filelock import FileLock, Timeout

from experiments.git import git, head, names
from experiments.overrides import write_params
from experiments.runs import DVC, run_python
from peftqa.config.params import Params, read_params
from peftqa.data.files import atomic_write
from peftqa.errors import UserError, one_line
from stages import workspace

CACHE = Path(".dvc/cache")
# A second index of git. It lists the clone's files copied from this workspace; only these get updated.
COPIED = {"GIT_INDEX_FILE": ".git/copied-files"}


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Keep other processes out of an experiment's folder. Raises UserError if one is using it."""
    try:
        with FileLock(f"{folder}.lock", timeout=0):
            yield
    except Timeout:
        raise UserError(f"another process is using {folder}; wait for it, or end it.") from None


def prepare(folder: Path, overrides: dict[str, object], files: Iterable[Path] = ()) -> None:
    """Make `folder` a clone of this workspace with the overrides in params.yaml. Results of an earlier run stay.

    files: the experiment's own files, which git need not track. Raises UserError if git cannot clone this workspace, or
    if a file is in the way.
    """
    commit = head()
    if not CACHE.parent.is_dir():
        raise UserError("this folder is not inside of a DVC repository; restore .dvc: `git checkout .dvc`.")
    untracked = names("ls-files", "--others", "--exclude-standard", "--directory", "--", ":!metrics")
    if missing := sorted(untracked.difference(map(str, files))):
        listed = one_line(", ".join(missing[:5])) + (", ..." if len(missing) > 5 else "")
        print(f"git does not track {listed}; if the experiment needs that, `git add` it first.")
    if not (folder / ".git").exists():
        if folder.exists() and any(folder.iterdir()):
            raise UserError(f"{folder} is in the way of an experiment's folder; move it.")
        with atomic_write(folder) as partial:
            git("clone", "--quiet", "--no-checkout", ".", str(partial))
    for lock in (folder / ".git").glob("*.lock"):
        lock.unlink()  # of a process that was killed
    params = write_params(folder / workspace.PARAMS, overrides)
    results = ["dvc.lock", *results_of(params)]
    apart = [str(workspace.PARAMS), *results]
    tree = snapshot(files, apart)
    sent = [f"{commit}:refs/workspace/commit", f"{tree}:refs/workspace/files"]
    git("push", "--quiet", "--no-verify", "--force", str(folder), *sent)
    update(folder, tree, apart)
    for name in results:
        if Path(name).is_file() and not os.path.lexists(folder / name):
            with atomic_write(folder / name) as partial:
                shutil.copy(name, partial)
    git("update-ref", "HEAD", commit, cwd=folder)
    git("read-tree", tree, cwd=folder)
    git("reset", "--quiet", "--", *apart, cwd=folder)
    share_cache(folder)
    if "data.source" in overrides:
        os.environ.pop("PUBMEDQA_SOURCE", None)  # it would take precedence over the experiment's data.source


def results_of(params: Params) -> list[str]:
    """The results in metrics/ that the pipeline writes and that git tracks."""
    metrics = [workspace.METRICS / f"{name}.json" for name in {*params.adapters, *params.evaluate.variants, "selected"}]
    return [*map(str, metrics), str(workspace.METRICS / "pairs.csv")]


def snapshot(files: Iterable[Path], apart: Sequence[str]) -> str:
    """A git tree of the tracked files, as they are in this workspace, and of `files`, but not of `apart`."""
    with TemporaryDirectory() as scratch:
        index = {"GIT_INDEX_FILE": str(Path(scratch, "index"))}
        shutil.copy(git("rev-parse", "--git-path", "index"), index["GIT_INDEX_FILE"])
        git("add", "--update", **index)
        git("add", "--force", "--", *map(str, files), **index)
        git("update-index", "--force-remove", "--", *apart, **index)
        return git("write-tree", **index)


def update(folder: Path, tree: str, apart: Sequence[str]) -> None:
    """Bring the clone's copied files to the state of a tree. An unchanged file keeps its time stamp for DVC.

    Raises UserError before anything is written if a file of the user is in the way of a new one.
    """
    git("update-index", "--force-remove", "--", *apart, cwd=folder, **COPIED)
    known = names("ls-files", cwd=folder, **COPIED) | names("ls-files", cwd=folder)
    for name in sorted(names("ls-tree", "-r", "--name-only", tree, cwd=folder)):
        target = folder / name
        if os.path.lexists(target) and (name not in known or (target.is_dir() and not target.is_symlink())):
            raise UserError(f"{target} is in the way of a file that git tracks in this workspace; move it.")
    # List old and new files first: if this process is killed, the next one knows the files that it wrote.
    new = git("ls-tree", "-r", "-z", tree, cwd=folder)
    git("update-index", "--replace", "-z", "--index-info", cwd=folder, stdin=new, **COPIED)
    git("update-index", "-q", "--refresh", cwd=folder, **COPIED)
    git("read-tree", "--reset", "-u", tree, cwd=folder, **COPIED)


def share_cache(folder: Path) -> None:
    """Let the clone use this workspace's DVC cache, wherever that is.

    The clone gets a link to the cache, because DVC's configuration can only have paths in ASCII.
    """
    path = Path(dvc(Path(), "cache", "dir").strip())
    link = folder / CACHE
    link.unlink(missing_ok=True)
    path.mkdir(parents=True, exist_ok=True)
    link.symlink_to(os.path.relpath(path.resolve(), link.parent.resolve()))
    dvc(folder, "cache", "dir", "--local", str(CACHE))


def record(folder: Path, name: str, stages: Sequence[str] = ()) -> None:
    """Save the clone as this repository's DVC experiment `name`, based on the clone's HEAD; an older one is replaced.

    stages: the stages that have run; empty for all.
    """
    results = results_of(read_params(folder / workspace.PARAMS))
    included = [f"-I{path}" for path in sorted(names("ls-files", "--others", cwd=folder).intersection(results))]
    dvc(folder, "exp", "save", "--force", "--name", name, *included, *stages)
    commit = git("rev-parse", "HEAD", cwd=folder)
    ref = f"refs/exps/{commit[:2]}/{commit[2:]}/{name}"  # where DVC keeps an experiment of this commit
    git("fetch", "--quiet", "--no-tags", str(folder), f"+{ref}:{ref}")


def dvc(folder: Path, *arguments: str) -> str:
    """Run DVC in a folder, and show only its warnings and errors. Returns the rest of what it printed."""
    return run_python(*DVC, *arguments, folder=folder).stdout
