"""Files with a known sha256, fetched from a web address or a local path. Imports no torch."""

import os
import re
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

import pooch

from peftqa.errors import UserError, one_line

TIMEOUT = (10, 30)  # seconds to connect, and between two pieces of the answer
RETRIES = 2  # after 1 s and 2 s
NO_CONNECTION = "the connection to it fails"
# What errors of requests, httpx2 and huggingface_hub mean, by class. Their own texts quote other libraries' errors.
REASONS = {
    "OfflineModeIsEnabled": "HF_HUB_OFFLINE is set",
    "ProxyError": "the proxy does not answer",
    "SSLError": "its certificate is not trusted",
    "Timeout": "it does not answer in time",
    "ConnectionError": NO_CONNECTION,
    "NetworkError": NO_CONNECTION,
    "ChunkedEncodingError": "the connection broke off",
}


def is_url(address: str) -> bool:
    return "://" in address


def sibling(address: str, name: str) -> str:
    """The address of the file `name` beside the one at `address`; a URL keeps its query string."""
    path, *query = address.split("?", 1) if is_url(address) else [address]
    folder, slash, _ = path.rpartition("/")
    return "?".join([folder + slash + name, *query])


def shown_address(address: str) -> str:
    """The address without its possible secrets: user, password, query string."""
    return re.sub("[?#].*", "", re.sub("://.*@", "://***@", address)) if is_url(address) else address


def reason(error: BaseException, address: str) -> str:
    """Why an address did not give a file, in one line without the address's secrets."""
    for kind in type(error).__mro__:
        if kind.__name__ in REASONS:
            return REASONS[kind.__name__]
    if (response := getattr(error, "response", None)) is not None:
        return f"it answers with HTTP status {response.status_code} {response.headers.get('X-Error-Code', '')}".strip()
    text = one_line(error).partition(". Deleted download")[0]  # the rest is pooch's advice
    text = text.replace(address, shown_address(address))
    return re.sub(r"\?\S+", "", re.sub(r"://\S*@", "://***@", text))


def fetch(folder: Path, urls: dict[str, str], registry: dict[str, str], remedy: str) -> None:
    """Fetch files into `folder`, all or none. `urls` and `registry`: each file's address (or path) and sha256, by name.

    Raises UserError with the address, the reason, and `remedy`: what to do if the address cannot be used.
    """
    from requests import RequestException

    partial = folder / ".partial"
    shutil.rmtree(partial, ignore_errors=True)  # an earlier run may have been killed
    for name in urls:
        (folder / name).unlink(missing_ok=True)
    pooch.get_logger().setLevel("WARNING")  # its lines would show the whole address
    partial.mkdir(parents=True)
    files = pooch.create(partial, base_url="", registry=registry, urls=urls, retry_if_failed=RETRIES)
    try:
        for name, url in urls.items():
            if not is_url(url) and Path(url).exists() and not Path(url).is_file():
                raise ValueError("it is not a regular file")
            files.fetch(name, downloader=_download)
        for name in urls:
            (partial / name).replace(folder / name)
    except (OSError, ValueError) as error:
        local = isinstance(error, OSError) and not isinstance(error, RequestException)
        if local and (error.filename != url or error.filename2):  # the disk, not the address
            error.filename = error.filename2 or error.filename or str(folder)
            raise
        hint = line_endings_hint([Path(url)]) if isinstance(error, ValueError) and not is_url(url) else ""
        raise UserError(f"{shown_address(url)} could not be used ({reason(error, url)}); {remedy}{hint}") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def line_endings_hint(paths: Iterable[Path]) -> str:
    """What to do if a JSON file ends its lines as on Windows, which changes its digest; "" if none does."""
    for path in paths:
        # os.path.isfile, because an address can be too long for a file's name
        if path.suffix == ".json" and os.path.isfile(path) and b"\r\n" in path.open("rb").read(2**20):  # noqa: PTH113
            return (
                f" ({path} has Windows line endings, as git writes with core.autocrlf; if it is in git, delete it and "
                f"type `git checkout {path}`)"
            )
    return ""


def _download(url: str, output_file: str, _: object) -> None:
    """Fetch one file for pooch, which passes the name of a temporary file beside the target."""
    if is_url(url):
        pooch.HTTPDownloader(sys.stderr.isatty(), chunk_size=2**16, timeout=TIMEOUT)(url, output_file, None)
    else:
        shutil.copyfile(url, output_file)
