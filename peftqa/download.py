"""Files known by their sha256, fetched from a web address or a local path. Imports no torch."""

import shutil
import sys
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit, urlunsplit

from peftqa.digest import file_sha256
from peftqa.errors import UserError

TIMEOUT = (10, 30)  # seconds to connect, and between two pieces of the answer
RETRIES = 2  # after 1 s and 2 s
BUSY = (408, 425, 429)  # client errors that may pass


class Source(NamedTuple):
    """Where a file comes from (http or https address, or path), what it must hold, and where it goes."""

    address: str
    sha256: str
    target: Path


def is_url(address: str) -> bool:
    return "://" in address


def sibling(address: str, name: str) -> str:
    """The address of the file `name` beside the one at `address`; a URL keeps its query string."""
    if not is_url(address):
        return str(Path(address).with_name(name))
    parts = urlsplit(address)
    return urlunsplit(parts._replace(path=parts.path.rpartition("/")[0] + "/" + name))


def shown_address(address: str) -> str:
    """The address without what may be secret: user, password, query string."""
    if not is_url(address):
        return address
    parts = urlsplit(address)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment=""))


def fetch(sources: list[Source], remedy: str) -> None:
    """Fetch all files or none: the targets, all in one folder, get their names when the sha256 of each was verified.

    Raises UserError with the address, the reason, and `remedy`: what to do where the address cannot be used.
    """
    folder = sources[0].target.parent
    partial = folder / ".partial"
    shutil.rmtree(partial, ignore_errors=True)  # an earlier run may have been killed
    for source in sources:
        source.target.unlink(missing_ok=True)
    partial.mkdir(parents=True)
    try:
        for source in sources:
            _fetch_one(source, partial / source.target.name, remedy)
        for source in sources:
            (partial / source.target.name).replace(source.target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _fetch_one(source: Source, path: Path, remedy: str) -> None:
    address = shown_address(source.address)
    try:
        if is_url(source.address):
            _download(source.address, path, remedy)
        else:
            shutil.copyfile(source.address, path)
    except OSError as error:
        raise UserError(f"{address}: {error.strerror or error}; {remedy}") from None
    found = file_sha256(path)
    if found != source.sha256:
        raise UserError(
            f"{address} is not the expected file: its sha256 is {found} ({path.stat().st_size} bytes), expected "
            f"{source.sha256}; {remedy}"
        )


def _download(url: str, path: Path, remedy: str) -> None:
    import pooch
    import requests

    class Downloader(pooch.HTTPDownloader):
        def __call__(self, url: str, output_file: str, pooch: object) -> None:
            try:
                super().__call__(url, output_file, pooch)
            except requests.HTTPError as error:
                status = error.response.status_code
                if status < 500 and status not in BUSY:  # another try would get the same answer
                    raise UserError(f"{shown_address(url)}: {_reason(error)}; {remedy}") from None
                raise

    if urlsplit(url).scheme not in ("http", "https"):
        raise UserError(f"{shown_address(url)}: only http and https addresses and plain paths can be read; {remedy}")
    pooch.get_logger().setLevel("WARNING")  # its lines would show the whole address
    downloader = Downloader(progressbar=sys.stderr.isatty(), chunk_size=2**16, timeout=TIMEOUT)
    # No hash is given here: the caller verifies, for web addresses and local files alike.
    source = pooch.create(
        path.parent, base_url="", registry={path.name: None}, urls={path.name: url}, retry_if_failed=RETRIES
    )
    try:
        source.fetch(path.name, downloader=downloader)
    except (requests.RequestException, ValueError) as error:
        raise UserError(f"{shown_address(url)}: {_reason(error)}; {remedy}") from None


def _reason(error: Exception) -> str:
    """Why a request failed, without the address that the library's own message repeats."""
    import requests

    if isinstance(error, requests.HTTPError):
        return f"the server answered {error.response.status_code} {error.response.reason}".rstrip()
    reasons = {
        requests.exceptions.ProxyError: "the proxy could not be used",
        requests.exceptions.SSLError: "the server's certificate could not be verified",
        requests.Timeout: "the server did not answer in time",
        requests.exceptions.ChunkedEncodingError: "the connection broke before the whole file had come",
        requests.ConnectionError: "the server could not be reached",
    }
    return next((text for kind, text in reasons.items() if isinstance(error, kind)), type(error).__name__)
