"""A model's configuration, tokenizer and safetensors, from the Hugging Face Hub or a local folder. Imports no torch."""

import json
import os
import re
import shutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import pooch

from peftqa import program
from peftqa.data.digest import MODEL_FILES, folder_digest, is_commit, matching_files
from peftqa.data.files import atomic_write
from peftqa.errors import UserError, one_line
from peftqa.fetch.files import line_endings_hint, reason, shown_address

MODEL_WEIGHTS, MODEL_INDEX = "model.safetensors", "model.safetensors.index.json"
REMEDY = (
    "; is there a network? if so, check model.name and model.revision (README.md lists FLAN-T5's), or set HF_TOKEN for "
    "a gated model; else name a local folder, or set HF_HOME to a filled cache and HF_HUB_OFFLINE=1"
)


def fetch_model(name: str, revision: str | None, target: Path) -> str | None:
    """Make `target` a folder with the model's files (MODEL_FILES) and nothing else; an older one is replaced.

    If `revision` is 40 hexadecimal digits, it is a commit of the Hub's model `name`. Otherwise `name` is a local
    folder, and `revision` is the digest of its files (`folder_digest`), or None. Returns the digest that was found if
    `revision` is None, else None. Raises UserError. If copying fails, `target` is gone.
    """
    on_hub = is_commit(revision)
    if Path(name).resolve() == target.resolve():
        raise UserError(f"model.name: {name} is the folder that this stage writes; keep the model elsewhere")
    if on_hub and (Path(name).is_dir() or not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name) or name[0] == "."):
        raise UserError(
            f"model.revision: {revision} is a commit of the Hub, but model.name {name} is a folder; give `sha256:` and "
            "a digest, or leave model.revision empty, and the stage prints the digest"
        )
    subject = f"model.name: {name}"
    try:
        shutil.rmtree(target, ignore_errors=True)
        source = snapshot(name, revision, MODEL_FILES, f"{subject} at {revision}", REMEDY) if on_hub else Path(name)
        with atomic_write(target) as partial:
            _copy_model(source, subject, partial)
            digest = revision if on_hub else folder_digest(partial)
            if revision not in (None, digest):
                raise UserError(
                    f"{subject}: the files have the digest {digest}, not model.revision's {revision}; restore the "
                    f"files, or set model.revision to the digest found{line_endings_hint(matching_files(Path(name)))}"
                )
    except OSError as error:
        where = Path(error.filename2 or error.filename or target)
        if on_hub or where.is_relative_to(target.parent):  # this machine's disk, not the model
            error.filename = str(where)
            raise
        raise UserError(
            f"{subject} could not be copied to {target} ({one_line(error)}); for a model of the Hub set "
            "model.revision to its commit (40 hexadecimal digits), for a local folder check the path"
        ) from None
    return digest if revision is None else None


def _copy_model(source: Path, subject: str, copy: Path) -> None:
    """Copy the MODEL_FILES of a whole and undamaged model, following the links of the Hub's cache."""
    files = {path.name: path for path in matching_files(source)}
    _check_model(files, subject)
    copy.mkdir()
    for file, path in files.items():
        # The cache links each file to a blob, whose name is its sha256 if it is large.
        blob = path.readlink().name if path.is_symlink() else ""
        if re.fullmatch("[0-9a-f]{64}", blob) and pooch.file_hash(path) != blob:
            raise UserError(f"{path.resolve()} is damaged (its sha256 is another); delete it and run again")
        shutil.copyfile(path, copy / file)


def _check_model(files: dict[str, Path], subject: str) -> None:
    """Raise UserError for missing files, for broken JSON, and for code that the model would bring."""
    try:
        objects = {file: dict(json.loads(path.read_bytes())) for file, path in files.items() if path.suffix == ".json"}
        index = {} if MODEL_WEIGHTS in files else objects.get(MODEL_INDEX, {})
        weights = set(index.get("weight_map", {}).values()) or {MODEL_WEIGHTS}
    except (AttributeError, RecursionError, TypeError, ValueError) as error:
        raise UserError(f"{subject} has a broken JSON file ({one_line(error)})") from None
    if missing := {"config.json", "tokenizer.json", *weights} - files.keys():
        raise UserError(
            f"{subject} lacks {', '.join(sorted(map(str, missing))[:3])}; choose a model with configuration, tokenizer "
            "and safetensors weights (pickled weights are never read)"
        )
    if code := [file for file, values in objects.items() if "auto_map" in values]:
        raise UserError(f"{subject}: its {code[0]} asks for code of its own (auto_map), which is never run")


def snapshot(name: str, revision: str | None, patterns: Sequence[str], subject: str, remedy: str = "") -> Path:
    """The cache folder with a repository's matching files, at its newest commit if `revision` is None.

    Raises UserError if the Hub does not give them. Its sentence begins with `subject` and ends with `remedy`.
    """
    try:
        from huggingface_hub import get_token, snapshot_download, utils

        if not (get_token() or "").isascii():
            raise ValueError("HF_TOKEN, or the file of `hf auth login`, has letters that a token never has")
        utils.logging.set_verbosity_error()
        if not sys.stderr.isatty():
            utils.disable_progress_bars()
        interrupt = signal.getsignal(signal.SIGINT)
        if interrupt is signal.default_int_handler:  # it would wait for the threads that download gigabytes
            signal.signal(signal.SIGINT, program.end_at_once)
        try:
            return Path(snapshot_download(name, revision=revision, allow_patterns=[*patterns]))
        finally:
            signal.signal(signal.SIGINT, interrupt)
    except Exception as error:  # those of huggingface_hub, httpx2 and hf_xet do not share a class
        if isinstance(error, OSError) and error.errno:  # only errors of this machine have an errno
            raise
        hub = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
        if isinstance(error, FileNotFoundError) and error.__cause__:  # its text would repeat our "not in the cache"
            error = error.__cause__
        raise UserError(
            f"{subject} is not in the cache, and {shown_address(hub)} does not give it ({reason(error, hub)}){remedy}"
        ) from None
