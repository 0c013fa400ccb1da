"""Files known by their sha256, fetched from a web address or a local path. Imports no torch."""

import io
import re
import shutil
import signal
import sys
from pathlib import Path

import pooch

from peftqa.errors import UserError

MAX_MB = 100  # the records are 3 MB
MAX_SECONDS = 600  # for one file, all tries together
TIMEOUT = (10, 30)  # seconds to connect, and between two pieces of the answer
RETRIES = 2  # after 1 s and 2 s


class _CappedFile(io.FileIO):
    """A file that refuses to grow past MAX_MB: a stream may have no end.

    What it raises, and `_too_slow` too, is no OSError or ValueError: urllib3 or pooch would try again after those.
    """

    def write(self, data: bytes) -> int:
        if self.tell() + len(data) > MAX_MB * 10**6:
            raise RuntimeError(f"it is larger than {MAX_MB} MB")
        return super().write(data)


def is_url(address: str) -> bool:
    return "://" in address


def sibling(address: str, name: str) -> str:
    """The address of the file `name` beside the one at `address`; a URL keeps its query string."""
    path, *query = address.split("?", 1) if is_url(address) else [address]
    folder, slash, _ = path.rpartition("/")
    return "?".join([folder + slash + name, *query])


def shown_address(address: str) -> str:
    """The address without what may be secret: user, password, query string."""
    return re.sub("[?#].*", "", re.sub("://.*@", "://***@", address)) if is_url(address) else address


def one_line(error: Exception) -> str:
    """A library's own message in one line, its addresses without what may be secret."""
    message = re.sub("://.*@", "://***@", " ".join(str(error).split()))
    return re.sub(r"\?\S+", "", message)[:400] or type(error).__name__


def fetch(folder: Path, urls: dict[str, str], registry: dict[str, str], remedy: str) -> None:
    """Fetch files into `folder`, all or none. `urls` and `registry`: by file name, its address (or path) and sha256.

    Raises UserError with the address, the reason, and `remedy`: what to do where the address cannot be used.
    """
    partial = folder / ".partial"
    shutil.rmtree(partial, ignore_errors=True)  # an earlier run may have been killed
    for name in urls:
        (folder / name).unlink(missing_ok=True)
    pooch.get_logger().setLevel("WARNING")  # its lines would show the whole address
    files = pooch.create(partial, base_url="", registry=registry, urls=urls, retry_if_failed=RETRIES)
    # An alarm, because one byte a second outlives every timeout of a connection.
    signal.signal(signal.SIGALRM, _too_slow)
    try:
        for name, url in urls.items():
            signal.alarm(MAX_SECONDS)
            try:
                files.fetch(name, downloader=_download)
            except (RuntimeError, OSError, ValueError) as error:  # those of requests and pooch among them
                raise UserError(f"{shown_address(url)} could not be used ({one_line(error)}); {remedy}") from None
        for name in urls:
            (partial / name).replace(folder / name)
    finally:
        signal.alarm(0)
        shutil.rmtree(partial, ignore_errors=True)


def _too_slow(*_: object) -> None:
    raise RuntimeError(f"it took longer than {MAX_SECONDS} seconds")


def _download(url: str, output_file: str, _: object) -> None:
    """What pooch calls for each file, into a temporary file beside the target."""
    with _CappedFile(output_file, "w") as target:
        if is_url(url):
            pooch.HTTPDownloader(sys.stderr.isatty(), chunk_size=2**16, timeout=TIMEOUT)(url, target, None)
        else:
            with Path(url).open("rb") as source:
                shutil.copyfileobj(source, target)
