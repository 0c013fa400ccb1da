"""What DVC leaves of dropped runs and variants."""

from collections.abc import Iterable
from pathlib import Path


def remove_stale(folder: Path, expected: Iterable[Path]) -> None:
    """Delete the files below `folder` that are none of `expected` and in none of them.

    DVC leaves the files of a dropped seed, fold or adapter lying. A stage that depends on the whole folder would hash
    them, and its entry in dvc.lock would then differ from that of a clone in which they never were. DVC's cache keeps
    them: listing the seed again brings them back.
    """
    expected = set(expected)
    for path in sorted(folder.rglob("*"), reverse=True):  # files before the folders that hold them
        if path.is_dir() and not path.is_symlink():
            if not any(path.iterdir()):
                path.rmdir()
        elif not expected & {path, *path.parents}:
            path.unlink()
