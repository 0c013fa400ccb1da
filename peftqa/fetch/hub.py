"""A model's configuration, tokenizer and safetensors, from the Hugging Face Hub or a local folder. Imports no torch."""

import json
import re
import shutil
import sys
from pathlib import Path

import pooch

from peftqa.errors import UserError
from peftqa.fetch.digest import MODEL_FILES, folder_digest, matching_files
from peftqa.fetch.files import one_line, shown_address

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
NEEDED = ((WEIGHTS, INDEX), ("config.json",), ("tokenizer.json", "spiece.model"))  # one file of each
TIMEOUT = 10  # seconds for the Hub's first answer


def fetch_model(name: str, revision: str | None, target: Path) -> str | None:
    """Make `target` a folder with the model's files (MODEL_FILES) and nothing else; an older one is replaced.

    A `revision` of 40 hexadecimal digits is a commit of the Hub's model `name`. Else `name` is a local folder, and
    `revision` the digest of its files (`folder_digest`) to verify, or None. Returns the digest that was found where
    nothing was there to verify it, else None. Raises UserError, and then leaves no `target`.
    """
    on_hub = revision is not None and not revision.startswith("sha256:")
    if Path(name).resolve() == target.resolve():
        raise UserError(f"model.name: {name} is the folder that this stage writes; keep the model elsewhere")
    partial = target.with_name(target.name + ".partial")
    for old in (target, partial):
        shutil.rmtree(old, ignore_errors=True)
    try:
        _copy_model(_snapshot(name, revision) if on_hub else Path(name), name, partial)
        digest = revision if on_hub else folder_digest(partial)
        if revision not in (None, digest):
            raise UserError(
                f"model.name: the files in {name} have the digest {digest}, not model.revision's {revision}; restore "
                "the files, or set model.revision to the digest found"
            )
        partial.rename(target)
    except OSError as error:
        raise UserError(
            f"model.name: {name} could not be copied to {target} ({one_line(error)}); for a model of the Hub set "
            "model.revision to its commit (40 hexadecimal digits), for a local folder check the path"
        ) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return digest if revision is None else None


def _copy_model(source: Path, name: str, copy: Path) -> None:
    """Copy the MODEL_FILES, and only those of a whole and undamaged model, following the links of the Hub's cache."""
    files = {path.name: path for path in matching_files(source)}
    _check_model(files, name)
    copy.mkdir(parents=True)
    for file, path in files.items():
        # The cache links each file to a blob; large ones are named by their sha256.
        blob = path.readlink().name if path.is_symlink() else ""
        if re.fullmatch("[0-9a-f]{64}", blob) and pooch.file_hash(path) != blob:
            raise UserError(f"{path.resolve()} is damaged (its sha256 is another); delete it and run again")
        shutil.copyfile(path, copy / file)


def _check_model(files: dict[str, Path], name: str) -> None:
    """Raise UserError for missing files and shards, broken JSON, and code of the model's own."""
    for choices in NEEDED:
        if files.keys().isdisjoint(choices):
            raise UserError(
                f"model.name: {name} has no {' or '.join(choices)}; choose a model with configuration, tokenizer and "
                "safetensors weights (pickled weights are never read)"
            )
    try:
        objects = {file: dict(json.loads(path.read_bytes())) for file, path in files.items() if path.suffix == ".json"}
        shards = set() if WEIGHTS in files else set(objects[INDEX]["weight_map"].values()) or {WEIGHTS}
        missing = ", ".join(sorted(shards - set(files))[:3])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"model.name: {name} has a broken JSON file ({one_line(error)})") from None
    if missing:
        raise UserError(f"model.name: {name} lacks weight files that {INDEX} names: {missing}")
    if code := [file for file, values in objects.items() if "auto_map" in values]:
        raise UserError(f"model.name: {code[0]} of {name} asks for code of its own (auto_map), which is never run")


def _snapshot(name: str, commit: str) -> Path:
    """The Hub's cache folder of one commit, with all of its MODEL_FILES."""
    import httpx2
    from huggingface_hub import HfApi, constants, snapshot_download, utils

    utils.logging.set_verbosity_error()
    if not sys.stderr.isatty():
        utils.disable_progress_bars()
    refusal = None
    try:
        try:  # One request, which fails at once where snapshot_download would try again for 23 s.
            HfApi().model_info(name, revision=commit, timeout=TIMEOUT)
        except (httpx2.HTTPError, OSError) as error:
            refusal = error  # A commit never changes, so the cache may stand in for the Hub.
        offline = refusal is not None
        return Path(snapshot_download(name, revision=commit, allow_patterns=[*MODEL_FILES], local_files_only=offline))
    # Not the Hub's own alone: hf_xet raises RuntimeError, a full disk OSError, an answer that is no JSON ValueError.
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError, RuntimeError, ValueError) as error:
        raise UserError(
            f"model.name: {name} at {commit} is neither in the cache {constants.HF_HUB_CACHE} nor to be had from the "
            f"Hub at {shown_address(constants.ENDPOINT)} ({one_line(refusal or error)}); check model.name and "
            "model.revision, which change together (README.md lists FLAN-T5's; a local folder takes `sha256:` and a "
            "digest), or set HF_TOKEN for a gated model, HF_ENDPOINT to a mirror, HF_HOME to a filled cache with "
            "HF_HUB_OFFLINE=1"
        ) from None
