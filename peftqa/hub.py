"""A model's configuration, tokenizer and safetensors, from the Hugging Face Hub or a local folder. Imports no torch.

Nothing fetched is unpickled, and a model that needs code of its own is refused.
"""

import json
import re
import shutil
import sys
from pathlib import Path

from peftqa.digest import MODEL_FILES, file_sha256, folder_digest, model_files
from peftqa.download import shown_address
from peftqa.errors import UserError

# Chung et al. 2022, arXiv 2210.11416: the sizes that fit one machine, each at the revision this project pins.
FLAN_T5_REVISIONS = {
    "google/flan-t5-small": "0fc9ddf78a1e988dac52e2dac162b0ede4fd74ab",
    "google/flan-t5-base": "7bcac572ce56db69c1ea7c8af255c5d7c9672fc2",
    "google/flan-t5-large": "0613663d0d48ea86ba8cb3d7a44f0f65dc596a2a",
    "google/flan-t5-xl": "7d6315df2c2fb742f0f5b556879d730926ca9001",
}
TIMEOUT = 10  # seconds for the Hub's first answer
ELSEWHERE = (
    "set HF_ENDPOINT to a mirror, HF_HOME to a filled cache with HF_HUB_OFFLINE=1, or model.name to a local folder"
)


def fetch_model(name: str, revision: str | None, target: Path) -> str | None:
    """Make `target` a folder with the model's files (MODEL_FILES) and nothing else; an older one is replaced.

    A `revision` of 40 hexadecimal digits is a commit of the Hub's model `name`. Else `name` is a local folder, and
    `revision` the digest of its files (`folder_digest`) to verify, or None. Returns the digest that was found where
    nothing was there to verify it, else None. Raises UserError, and then leaves no `target`.
    """
    on_hub = revision is not None and not revision.startswith("sha256:")
    if not on_hub and Path(name).resolve() == target.resolve():
        raise UserError(f"model.name: {name} is the folder that this stage writes; keep the model elsewhere")
    partial = target.with_name(target.name + ".partial")
    for old in (target, partial):
        shutil.rmtree(old, ignore_errors=True)
    source = _snapshot(name, revision) if on_hub else _local_folder(name, revision)
    check_complete([path.name for path in source.iterdir()], name)
    _check_contents(source, name)
    try:
        partial.mkdir(parents=True)
        for file in model_files(path.name for path in source.iterdir()):
            shutil.copyfile(source / file, partial / file)  # follows the links of the Hub's cache
        digest = None if on_hub else folder_digest(partial)
        if revision is not None and digest is not None and digest != revision:
            raise UserError(
                f"model.name: {name} holds other files than model.revision says: their digest is {digest}, not "
                f"{revision}; restore the files, or set model.revision to the digest found"
            )
        partial.rename(target)
    except OSError as error:
        raise UserError(f"model.name: {name} could not be copied to {target}: {error.strerror}") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return digest if revision is None else None


def check_complete(names: list[str], where: str) -> None:
    """Raise UserError where the file names of a model lack configuration, tokenizer or safetensors weights."""
    if not {"model.safetensors", "model.safetensors.index.json"} & set(names):
        pickles = sorted(name for name in names if name.endswith((".bin", ".pt", ".ckpt", ".h5", ".msgpack")))
        found = f" (it has {', '.join(pickles[:3])}; pickled weights are never read)" if pickles else ""
        raise UserError(f"model.name: {where} has no model.safetensors{found}; choose a model with safetensors weights")
    if "config.json" not in names:
        raise UserError(f"model.name: {where} has no config.json; choose a model that transformers can load")
    if not {"tokenizer.json", "spiece.model"} & set(names):
        raise UserError(f"model.name: {where} has no tokenizer.json or spiece.model; add the model's tokenizer")


def _check_contents(folder: Path, name: str) -> None:
    """Raise UserError for remote code, missing shards, and weights that are not what the Hub's cache calls them."""
    for file in ("config.json", "tokenizer_config.json"):
        if "auto_map" in _read_object(folder / file, name):
            raise UserError(f"model.name: {file} of {name} asks for code of its own (auto_map), which is never run")
    if not (folder / "model.safetensors").is_file():
        weight_map = _read_object(folder / "model.safetensors.index.json", name).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise UserError(f"model.name: model.safetensors.index.json of {name} has no weight_map")
        present = model_files(path.name for path in folder.iterdir() if path.is_file())
        missing = sorted(set(map(str, weight_map.values())) - set(present))
        if missing:
            raise UserError(f"model.name: {name} lacks {len(missing)} of its weight files: {', '.join(missing[:3])}")
    for path in folder.glob("*.safetensors"):
        # The cache links each file to a blob; large ones are named by their sha256.
        blob = path.readlink().name if path.is_symlink() else ""
        if re.fullmatch("[0-9a-f]{64}", blob) and file_sha256(path) != blob:
            raise UserError(f"{path.resolve()} is damaged (its sha256 is another); delete it and run again")


def _read_object(path: Path, name: str) -> dict:
    """The JSON object in a file; {} where there is no such file."""
    if not path.exists():
        return {}
    try:
        values = json.loads(path.read_bytes())
    except (ValueError, OSError):
        values = None
    if not isinstance(values, dict):
        raise UserError(f"model.name: {path.name} of {name} is no JSON object")
    return values


def _local_folder(name: str, revision: str | None) -> Path:
    folder = Path(name)
    if not folder.is_absolute() and not folder.resolve().is_relative_to(Path.cwd()):
        raise UserError(
            f"model.name: {name!r} leads out of the repository, and experiments run in a temporary folder, where it "
            "leads elsewhere; give an absolute path, or a path inside the repository"
        )
    if not folder.is_dir():
        known = FLAN_T5_REVISIONS.get(name, "its commit (40 hexadecimal digits)")
        raise UserError(
            f"model.name: {name!r} is no folder, and model.revision {revision or 'null'} wants one; give an absolute "
            f"path, or for a model of the Hub set model.revision to {known}"
        )
    return folder


def _snapshot(name: str, commit: str) -> Path:
    """The Hub's cache folder of one commit, with all of its MODEL_FILES."""
    if Path(name).is_absolute() or Path(name).is_dir():
        raise UserError(
            f"model.name: {name!r} is a local folder, but model.revision {commit} is a commit of the Hub; set it to "
            "`sha256:` and the digest of the folder's files, or to null to be told the digest"
        )
    owner = next((other for other, revision in FLAN_T5_REVISIONS.items() if revision == commit), name)
    if name in FLAN_T5_REVISIONS and owner != name:
        raise _wrong_revision(name, commit, f" but of {owner}")

    import httpx2
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
    from huggingface_hub.utils import disable_progress_bars, logging

    logging.set_verbosity_error()
    if not sys.stderr.isatty():
        disable_progress_bars()
    unreachable = None
    try:
        # One request that tells at once what snapshot_download would after 23 s of retries or after the download.
        try:
            info = HfApi().model_info(name, revision=commit, timeout=TIMEOUT)
            check_complete([file.rfilename for file in info.siblings or []], f"{name} at {commit}")
        except OfflineModeIsEnabled:
            unreachable = "HF_HUB_OFFLINE is set"
        except httpx2.TransportError as error:
            unreachable = f"the Hub at {_endpoint()} cannot be reached ({type(error).__name__})"
        except HfHubHTTPError as error:
            if error.response.status_code < 500:
                raise
            unreachable = f"the Hub at {_endpoint()} answers {error.response.status_code}"
        # A commit never changes, so the cache may stand in for a Hub that cannot be reached.
        offline = unreachable is not None
        return Path(
            snapshot_download(name, revision=commit, allow_patterns=list(MODEL_FILES), local_files_only=offline)
        )
    # Not the Hub's own alone: hf_xet raises RuntimeError, a full disk OSError, an answer that is no JSON ValueError.
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError, RuntimeError, ValueError) as error:
        raise _explain(error, name, commit, unreachable) from None


def _explain(error: Exception, name: str, commit: str, unreachable: str | None) -> UserError:
    """An error of huggingface_hub as one sentence; `unreachable` says why the Hub could not be asked, if so."""
    from huggingface_hub import constants, errors

    status = error.response.status_code if isinstance(error, errors.HfHubHTTPError) else None
    if isinstance(error, errors.HFValidationError):
        return UserError(
            f"model.name: {name!r} is neither a local folder nor a name on the Hub like {next(iter(FLAN_T5_REVISIONS))}"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return _wrong_revision(name, commit)
    if isinstance(error, errors.GatedRepoError):  # a kind of RepositoryNotFoundError
        return UserError(
            f"model.name: {name} is gated; accept its terms on {_endpoint()}/{name} and set HF_TOKEN to a token"
        )
    if isinstance(error, errors.RepositoryNotFoundError) or status == 401:
        return UserError(
            f"model.name: the Hub at {_endpoint()} knows no {name}, or shows it only to those with a valid token "
            "(HF_TOKEN); check the name, or give a local folder"
        )
    if isinstance(error, errors.LocalEntryNotFoundError):
        return UserError(
            f"model.name: {name} at {commit} is not, or not wholly, in the cache {constants.HF_HUB_CACHE}, and "
            f"{unreachable or f'the Hub at {_endpoint()} did not send it'}; {ELSEWHERE}"
        )
    reason = f"it answered {status}" if status else f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return UserError(
        f"model.name: {name} at {commit} could not be fetched from the Hub at {_endpoint()} ({reason}); {ELSEWHERE}"
    )


def _endpoint() -> str:
    from huggingface_hub import constants

    return shown_address(constants.ENDPOINT)


def _wrong_revision(name: str, commit: str, note: str = "") -> UserError:
    if name in FLAN_T5_REVISIONS:
        known = ", ".join(f"{size} {revision}" for size, revision in FLAN_T5_REVISIONS.items())
        todo = f"name and revision change together: {known}"
    else:
        todo = "set model.revision to the 40 hexadecimal digits of one of its commits"
    return UserError(f"model.revision: {commit} is no revision of {name}{note}; {todo}")
