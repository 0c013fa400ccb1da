"""Files that DVC leaves behind when runs or variants are dropped."""

from collections.abc import Iterable
from pathlib import Path


def remove_stale(folder: Path, expected: Iterable[Path]) -> None:
    """Delete the files below `folder` that are neither one of `expected` nor inside one of them.

    DVC does not delete the files of a dropped seed, fold or adapter. A stage that depends on the whole folder would
    hash them, so its entry in dvc.lock would differ from that of a fresh clone. They stay in DVC's cache, from which
    they come back if the seed is listed again.
    """
    expected = set(expected)
    for path in sorted(folder.rglob("*"), reverse=True):  # files before the folders that hold them
        if path.is_dir() and not path.is_symlink():
            if not any(path.iterdir()):
                path.rmdir()
        elif not expected & {path, *path.parents}:
            path.unlink()
