"""Prepare the clone of this repository in which an experiment runs, and record a DVC experiment from it.

The clone gets three kinds of files: those that git tracks, as they are in the workspace; the experiment's own files in
experiments/; and dvc.lock and the pipeline's results in metrics/. It does not get any other file. All its files are
committed, and other files may be private.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from experiments.git import IDENTITY, git, head, names
from experiments.overrides import write_params
from experiments.runs import DVC, run_python
from peftqa.config.params import read_params
from peftqa.data.digest import is_commit
from peftqa.data.files import atomic_write
from peftqa.errors import UserError
from stages import workspace

CACHE = Path(".dvc/cache")
OWN = ("peftqa/", "stages/", "experiments/")  # where a missing module most likely is
COPIED = Path(".git/copied")  # lists the clone's files that were copied from this workspace; others are not touched


def prepare(folder: Path, overrides: dict[str, object], files: Iterable[Path] = ()) -> None:
    """Make `folder` a clone of this workspace with the overrides in params.yaml. Results of an earlier run stay.

    files: the experiment's own files, which git need not track. Raises UserError if git cannot clone this workspace, if
    a file is in the way, or if a parameter names a file that is not in the clone.
    """
    commit = head()
    if not CACHE.parent.is_dir():
        raise UserError("this folder is not inside of a DVC repository; restore .dvc: `git checkout .dvc`.")
    if not (folder / ".git").exists():
        if folder.exists() and any(folder.iterdir()):
            raise UserError(f"{folder} is in the way of an experiment's folder; move it.")
        with atomic_write(folder) as partial:
            git("clone", "--quiet", "--origin", "origin", "--no-checkout", ".", str(partial))
    copied = folder / COPIED
    before = read_names(copied) if copied.exists() else names("ls-files", cwd=folder)
    git("fetch", "--quiet", "--no-tags", os.path.relpath(".", folder), "HEAD", cwd=folder)
    git("reset", "--quiet", commit, cwd=folder)
    write_params(folder / workspace.PARAMS, overrides)

    results = {"dvc.lock", *results_of(folder)}
    apart = results | {str(workspace.PARAMS)}
    ours = {name for name in names("ls-files") | set(map(str, files)) if is_file(Path(name))} - apart
    for name in before - ours - apart:
        remove_file(folder / name)
    changed = [name for name in sorted(ours) if not same(Path(name), folder / name)]
    for target in (folder / name for name in changed):
        if os.path.lexists(target) and (str(target.relative_to(folder)) not in before or is_folder(target)):
            raise UserError(f"{target} is in the way of a file that git tracks in this workspace; move it.")
    write_names(copied, before | ours)
    for name in changed:
        copy(Path(name), folder / name)
    for name in results:
        if is_file(Path(name)) and not os.path.lexists(folder / name):
            copy(Path(name), folder / name)
    write_names(copied, ours)
    staged = [name for name in ours | (names("ls-files", cwd=folder) - results) if not is_folder(folder / name)]
    git("update-index", "--add", "--remove", "--replace", "-z", "--stdin", cwd=folder, paths=sorted(staged))
    check_inputs(folder)
    share_cache(folder)
    if "data.source" in overrides:
        os.environ.pop("PUBMEDQA_SOURCE", None)  # it would take precedence over the experiment's data.source


def results_of(folder: Path) -> list[str]:
    """The results in metrics/ that the pipeline writes in a clone and that git tracks."""
    params = read_params(folder / workspace.PARAMS)
    metrics = [workspace.METRICS / f"{name}.json" for name in {*params.adapters, *params.evaluate.variants, "selected"}]
    return [*map(str, metrics), str(workspace.METRICS / "pairs.csv")]


def is_file(path: Path) -> bool:
    """Whether git would treat the path as a file. A link is a file. A path that goes through a linked folder is not."""
    return (path.is_symlink() or path.is_file()) and not any(parent.is_symlink() for parent in path.parents)


def read_names(path: Path) -> set[str]:
    return set(os.fsdecode(path.read_bytes()).split("\0"))


def write_names(path: Path, found: set[str]) -> None:
    with atomic_write(path) as partial:
        partial.write_bytes(os.fsencode("\0".join(found)))


def is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def same(source: Path, target: Path) -> bool:
    """Whether target is already a copy of source. It is then left alone, so it keeps its time stamp for DVC."""
    return os.path.lexists(target) and not is_folder(target) and content(source) == content(target)


def content(path: Path) -> tuple[object, ...]:
    return (path.readlink(),) if path.is_symlink() else (path.stat().st_mode & 0o111, path.read_bytes())


def copy(source: Path, target: Path) -> None:
    """Copy a file, or a link as a link."""
    with atomic_write(target) as partial:
        shutil.copy(source, partial, follow_symlinks=False)


def remove_file(path: Path) -> None:
    """Delete a file that git no longer tracks, and the folders that are then empty."""
    if is_folder(path):
        return
    path.unlink(missing_ok=True)
    for parent in path.parents:
        if not parent.is_dir() or any(parent.iterdir()):
            break
        parent.rmdir()


def check_inputs(folder: Path) -> None:
    """Raise UserError if data.source or model.name is a path that exists in this workspace but not in the clone."""
    params = read_params(folder / workspace.PARAMS)
    inputs = {"data.source": params.data.source}
    if not is_commit(params.model.revision):
        inputs["model.name"] = params.model.name
    for key, path in inputs.items():
        if os.path.exists(path) and not os.path.exists(folder / path):  # noqa: PTH110 - Path.exists fails if too long
            raise UserError(
                f"{key}: git does not track {path!r}, so the experiment does not have it; `git add` it, or give an "
                "absolute path."
            )


@contextmanager
def explain_untracked() -> Iterator[None]:
    """If something fails in a clone, say which modules of this workspace are not in the clone."""
    try:
        yield
    except SystemExit:
        if hint := untracked_modules():
            raise UserError(f"the experiment failed, see above; {hint}") from None
        raise


def untracked_modules() -> str:
    """A sentence that names this workspace's modules that git does not track; "" if there are none."""
    found = [name for name in names("ls-files", "--others", "--exclude-standard") if name.endswith(".py")]
    found.sort(key=lambda name: (not name.startswith(OWN), name))
    listed = ", ".join(found[:5])
    return f"git does not track {listed}; if the experiment needs it, `git add` it and start again." if found else ""


def share_cache(folder: Path) -> None:
    """Let the clone use this workspace's DVC cache, wherever that is.

    The clone gets a link to the cache, because DVC's configuration can only have paths in ASCII.
    """
    path = Path(dvc(Path(), "cache", "dir").strip())
    link = folder / CACHE
    if link.is_dir() and not link.is_symlink():
        raise UserError(f"{link} is in the way of a link to this workspace's DVC cache; move it.")
    link.unlink(missing_ok=True)
    path.mkdir(parents=True, exist_ok=True)
    link.symlink_to(os.path.relpath(path.resolve(), link.parent.resolve()))
    dvc(folder, "cache", "dir", "--local", str(CACHE))


def record(folder: Path, name: str, stages: Sequence[str] = ()) -> None:
    """Save the clone as the DVC experiment `name` of its HEAD in this repository, in place of an older one.

    stages: the stages that have run; empty for all.
    """
    untracked = names("ls-files", "--others", cwd=folder)
    included = [f"-I{path}" for path in sorted(untracked.intersection(results_of(folder)))]
    dvc(folder, "exp", "save", "--force", "--name", name, *included, *stages)
    commit = git("rev-parse", "HEAD", cwd=folder)
    ref = f"refs/exps/{commit[:2]}/{commit[2:]}/{name}"  # where DVC keeps an experiment of this commit
    git("fetch", "--quiet", "--no-tags", str(folder), f"+{ref}:{ref}")


def dvc(folder: Path, *arguments: str) -> str:
    """Run DVC in a folder, and show only its warnings and errors. Returns the rest of what it printed."""
    return run_python(*DVC[1:], *arguments, folder=folder, stdout=subprocess.PIPE, **IDENTITY)
