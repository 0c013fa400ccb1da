"""Digests: sha256 over the bytes of files, whatever their times and places. Imports no torch."""

import hashlib
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path

import pooch

# The files of a model folder that loading reads: configuration, tokenizer, weights. None of them can contain code.
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


def matching_files(folder: Path, patterns: Iterable[str] = MODEL_FILES) -> list[Path]:
    """The files directly in a folder whose names match a pattern, sorted by code point."""
    names = (path.name for path in folder.iterdir() if path.is_file())
    return [folder / name for name in sorted(names) if any(fnmatchcase(name, pattern) for pattern in patterns)]


def is_commit(revision: str | None) -> bool:
    """Whether a revision is a commit of the Hub, and not the digest of a local folder or None."""
    return revision is not None and not revision.startswith("sha256:")


def digest(path: Path) -> str:
    """The sha256 of a file, or the `folder_digest` of all files in a folder."""
    return folder_digest(path, ["*"]) if path.is_dir() else pooch.file_hash(path)


def folder_digest(folder: Path, patterns: Iterable[str] = MODEL_FILES) -> str:
    """`sha256:` and a digest over the names and bytes of a folder's matching files; it takes a second per gigabyte.

    In the folder, `sha256sum NAMES... | sha256sum` prints this digest if NAMES are in the order of `LC_ALL=C sort`. For
    a model's folder it is the value of `model.revision`.
    """
    lines = [f"{pooch.file_hash(path)}  {path.name}\n" for path in matching_files(folder, patterns)]
    return "sha256:" + hashlib.sha256("".join(lines).encode()).hexdigest()
