"""A model's configuration, tokenizer and safetensors, from the Hugging Face Hub or a local folder. Imports no torch."""

import contextlib
import errno
import json
import os
import re
import resource
import shutil
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pooch

from peftqa.errors import UserError
from peftqa.fetch.digest import MODEL_FILES, folder_digest, is_commit, matching_files
from peftqa.fetch.files import check_address, line_endings_hint, reason, shown_address, why
from peftqa.model.checkpoint import MODEL_INDEX, MODEL_WEIGHTS, check_checkpoint

NEEDED = ((MODEL_WEIGHTS, MODEL_INDEX), ("config.json",), ("tokenizer.json",))  # one file of each
TIMEOUT = 10  # seconds for the Hub's first answer
MAX_GB = 100  # of all files; the largest FLAN-T5 has 45
MAX_HOURS = 12


def fetch_model(name: str, revision: str | None, target: Path) -> str | None:
    """Make `target` a folder with the model's files (MODEL_FILES) and nothing else; an older one is replaced.

    A `revision` of 40 hexadecimal digits is a commit of the Hub's model `name`. Else `name` is a local folder, and
    `revision` the digest of its files (`folder_digest`) to verify, or None. Returns the digest that was found where
    nothing was there to verify it, else None. Raises UserError, and then leaves no `target`.
    """
    on_hub = is_commit(revision)
    if Path(name).resolve() == target.resolve():
        raise UserError(f"model.name: {name} is the folder that this stage writes; keep the model elsewhere")
    partial = target.with_name(target.name + ".partial")
    for old in (target, partial):
        shutil.rmtree(old, ignore_errors=True)
    try:
        _copy_model(_commit(name, revision) if on_hub else Path(name), name, partial)
        digest = revision if on_hub else folder_digest(partial)
        if revision not in (None, digest):
            raise UserError(
                f"model.name: the files in {name} have the digest {digest}, not model.revision's {revision}; restore "
                f"the files, or set model.revision to the digest found{line_endings_hint(matching_files(Path(name)))}"
            )
        check_checkpoint(partial, f"model.name: {name}")
        partial.rename(target)
    except OSError as error:
        where = Path(error.filename2 or error.filename or target)
        if on_hub or where.is_relative_to(target.parent):  # this machine's disk, not the model
            error.filename = str(where)
            raise
        raise UserError(
            f"model.name: {name} could not be copied to {target} ({reason(error)}); for a model of the Hub set "
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
        shards = (
            set() if MODEL_WEIGHTS in files else set(objects[MODEL_INDEX]["weight_map"].values()) or {MODEL_WEIGHTS}
        )
        missing = ", ".join(sorted(shards - set(files))[:3])
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise UserError(f"model.name: {name} has a broken JSON file ({reason(error)})") from None
    if missing:
        raise UserError(f"model.name: {name} lacks weight files that {MODEL_INDEX} names: {missing}")
    if code := [file for file, values in objects.items() if "auto_map" in values]:
        raise UserError(f"model.name: {code[0]} of {name} asks for code of its own (auto_map), which is never run")


def _commit(name: str, commit: str) -> Path:
    """The Hub's cache folder of one commit, with all of its MODEL_FILES."""
    remedy = (
        "; check model.name and model.revision, which change together (README.md lists FLAN-T5's; a local folder takes "
        "`sha256:` and a digest), or set HF_TOKEN for a gated model, HF_ENDPOINT to a mirror, HF_HOME to a filled "
        "cache with HF_HUB_OFFLINE=1"
    )
    return snapshot(name, commit, MODEL_FILES, f"model.name: {name} at {commit}", remedy)


def snapshot(name: str, revision: str | None, patterns: Sequence[str], subject: str, remedy: str = "") -> Path:
    """The Hub's cache folder of a repository, with the files that match; of its newest commit without `revision`.

    Raises UserError where they are not to be had, which begins with `subject` and ends with `remedy`.
    """
    if address := os.environ.get("HF_ENDPOINT"):
        try:
            check_address(address)  # the libraries below fail at their import
        except ValueError as error:
            raise UserError(
                f"HF_ENDPOINT: {shown_address(address)} is no address of a Hub ({error}); unset it, or name a mirror"
            ) from None
    import httpx2
    from huggingface_hub import HfApi, constants, snapshot_download, utils

    utils.logging.set_verbosity_error()
    if not sys.stderr.isatty():
        utils.disable_progress_bars()
    refusal, sizes = None, []
    try:
        try:  # One request, which fails at once where snapshot_download would try again for 23 s.
            listed = HfApi().model_info(name, revision=revision, timeout=TIMEOUT, files_metadata=True).siblings or []
            wanted = utils.filter_repo_objects(listed, allow_patterns=[*patterns], key=lambda file: file.rfilename)
            sizes = [file.size or 0 for file in wanted]
        except (httpx2.HTTPError, OSError) as error:
            refusal = error  # A commit never changes, so the cache may stand in for the Hub.
        with _bounds(subject, sizes):
            offline = refusal is not None
            return Path(
                snapshot_download(name, revision=revision, allow_patterns=[*patterns], local_files_only=offline)
            )
    # Not the Hub's own alone: hf_xet raises RuntimeError, an answer that is no JSON ValueError, SOCKS ImportError.
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError, RuntimeError, ValueError, ImportError) as error:
        for local in (refusal, error):
            if isinstance(local, OSError) and local.errno:  # this machine's; the libraries' own have no number
                local.filename = local.filename or constants.HF_HUB_CACHE
                raise local from None
        raise UserError(
            f"{subject} is neither in the cache {constants.HF_HUB_CACHE} nor to be had from the Hub at "
            f"{shown_address(constants.ENDPOINT)} ({why(refusal or error, constants.ENDPOINT)}){remedy}"
        ) from None


@contextlib.contextmanager
def _bounds(subject: str, sizes: list[int]) -> Iterator[None]:
    """Bounds for a download from the Hub: in all, in time, and for each file the largest size that the Hub lists.

    Where time is up, and on Ctrl-C, the process ends at once: an exception would wait for threads that read what may
    have no end. What has come so far stays in the Hub's cache, and the next run goes on from there.
    """
    if sum(sizes) > MAX_GB * 10**9:
        raise UserError(f"{subject} has {sum(sizes) / 1e9:.0f} GB, more than the {MAX_GB} that are fetched")

    def leave(number: int, _: object) -> None:
        why_ended = f"took longer than {MAX_HOURS} hours" if number == signal.SIGALRM else "was interrupted"
        os.write(
            2, f"error: fetching {subject} {why_ended}; the same command goes on where this one stopped.\n".encode()
        )
        os._exit(1)

    handlers = {number: signal.signal(number, leave) for number in (signal.SIGALRM, signal.SIGINT)}
    unbounded = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.alarm(MAX_HOURS * 3600)
    resource.setrlimit(resource.RLIMIT_FSIZE, (max(sizes, default=0) or unbounded[0], unbounded[1]))
    try:
        yield
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise UserError(f"{subject}: the Hub sends more of a file than it lists; try again, or elsewhere") from None
        raise
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unbounded)
        signal.alarm(0)
        for number, handler in handlers.items():
            signal.signal(number, handler)
