"""Names by content: what the bytes of files are, whatever their times and places. Imports no torch."""

import hashlib
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path

# The files of a model folder that loading reads: configuration, tokenizer, weights. None of them can hold code.
MODEL_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "spiece.model",
    "model.safetensors",
    "model-*-of-*.safetensors",
    "model.safetensors.index.json",
)


def model_files(names: Iterable[str]) -> list[str]:
    """Those of `names` that are files of a model (MODEL_FILES), sorted by code point."""
    return sorted(name for name in names if any(fnmatchcase(name, pattern) for pattern in MODEL_FILES))


def file_sha256(path: Path) -> str:
    """sha256 of a file's bytes, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_digest(root: Path, names: Iterable[str]) -> str:
    """`sha256:` and the digest over the named files under `root`: their names and bytes, in no order.

    It is what `cd ROOT && sha256sum NAMES... | sha256sum` prints with the names in the order of `LC_ALL=C sort`.
    """
    lines = [f"{file_sha256(root / name)}  {name}\n" for name in sorted(set(names))]
    return "sha256:" + hashlib.sha256("".join(lines).encode()).hexdigest()


def folder_digest(folder: Path) -> str:
    """`sha256:` and the digest over a model folder's MODEL_FILES; other files and subfolders do not count.

    About a second per gigabyte. The value that `model.revision` has for a local folder.
    """
    return files_digest(folder, model_files(path.name for path in folder.iterdir() if path.is_file()))
