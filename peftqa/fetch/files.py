"""Files known by their sha256, fetched from a web address or a local path. Imports no torch."""

import contextlib
import io
import os
import re
import shutil
import signal
import sys
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit

import pooch

from peftqa.errors import UserError, one_line

MAX_MB = 100  # of one file; the records are 3 MB
MAX_SECONDS = 600  # for one file, all tries together
TIMEOUT = (10, 30)  # seconds to connect, and between two pieces of the answer
RETRIES = 2  # after 1 s and 2 s


class _CappedFile(io.FileIO):
    """A file that refuses to grow past MAX_MB: a stream may have no end.

    What it raises, and `_too_slow` too, is no OSError or ValueError: urllib3 or pooch would try again after those.
    """

    def write(self, data: bytes) -> int:
        check_length(self.tell() + len(data))
        try:
            done = super().write(data)
        except OSError as error:
            error.filename = self.name  # so that a full disk is told from an address that fails
            raise
        return done + (self.write(data[done:]) if done < len(data) else 0)  # a disk that fills up takes a part at first


def check_length(length: int) -> None:
    """Raises RuntimeError for what is too long to be a file of records."""
    if length > MAX_MB * 10**6:
        raise RuntimeError(f"it is larger than {MAX_MB} MB")


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


def check_address(address: str) -> None:
    """Raises ValueError for what no program could ask for a file."""
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https"):
        raise ValueError("it does not begin with http:// or https://")
    if not parts.hostname:
        raise ValueError("it names no host")
    _ = parts.port  # refuses what is none


def why(error: Exception, address: str) -> str:
    """Why an address could not be used, in one line, and through which proxy of the environment it was asked."""
    from requests.utils import get_environ_proxies, select_proxy

    proxy = None
    with contextlib.suppress(ValueError):  # no address at all
        proxy = select_proxy(address, get_environ_proxies(address)) if is_url(address) else None
    if not proxy:
        return reason(error)
    shown = shown_address(proxy if is_url(proxy) else f"http://{proxy}")
    return (
        f"{reason(error)}, through the proxy {shown}: see that HTTP_PROXY, HTTPS_PROXY or ALL_PROXY is right, or "
        "name the host in NO_PROXY"
    )


def reason(error: BaseException) -> str:
    """Why something failed, in one line: the system's own words where libraries have wrapped them; no secrets."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, TimeoutError) or (isinstance(cause, OSError) and cause.strerror and not cause.filename):
            return cause.strerror or "no answer in time"
        cause = cause.__cause__ or cause.__context__
    message = re.sub("://.*@", "://***@", one_line(error))
    return re.sub(r"\?\S+", "", message)[:400]


def fetch(folder: Path, urls: dict[str, str], registry: dict[str, str], remedy: str) -> None:
    """Fetch files into `folder`, all or none. `urls` and `registry`: by file name, its address (or path) and sha256.

    Raises UserError with the address, the reason, and `remedy`: what to do where the address cannot be used.
    """
    partial = folder / ".partial"
    shutil.rmtree(partial, ignore_errors=True)  # an earlier run may have been killed
    for name in urls:
        (folder / name).unlink(missing_ok=True)
    pooch.get_logger().setLevel("WARNING")  # its lines would show the whole address
    partial.mkdir(parents=True)
    files = pooch.create(partial, base_url="", registry=registry, urls=urls, retry_if_failed=RETRIES)
    # An alarm, because one byte a second outlives every timeout of a connection.
    signal.signal(signal.SIGALRM, _too_slow)
    try:
        for name, url in urls.items():
            signal.alarm(MAX_SECONDS)
            try:
                if is_url(url):
                    check_address(url)
                files.fetch(name, downloader=_download)
            except (RuntimeError, OSError, ValueError) as error:  # those of requests and pooch among them
                if Path(getattr(error, "filename", None) or "").is_relative_to(partial.absolute()):
                    raise  # the disk, not the address
                hint = line_endings_hint([Path(url)])
                raise UserError(f"{shown_address(url)} could not be used ({why(error, url)}); {remedy}{hint}") from None
        for name in urls:
            (partial / name).replace(folder / name)
    finally:
        signal.alarm(0)
        shutil.rmtree(partial, ignore_errors=True)


def line_endings_hint(paths: Iterable[Path]) -> str:
    """What to do if JSON files end their lines as on Windows, by which their digest changes; "" if none does."""
    texts = [path for path in paths if path.suffix == ".json" and os.path.isfile(path)]  # noqa: PTH113 - an address is long
    changed = [path for path in texts if path.stat().st_size < MAX_MB * 10**6 and b"\r\n" in path.read_bytes()]
    if not changed:
        return ""
    return (
        f" ({changed[0]} ends its lines as on Windows, as git does with core.autocrlf; if it is git's, delete it and "
        f"type `git checkout {changed[0]}`)"
    )


def _too_slow(*_: object) -> None:
    raise RuntimeError(f"it took longer than {MAX_SECONDS} seconds")


def _download(url: str, output_file: str, _: object) -> None:
    """What pooch calls for each file, into a temporary file beside the target."""
    with _CappedFile(output_file, "w") as target:
        if is_url(url):
            hooks = {"response": lambda answer, **_: check_length(int(answer.headers.get("Content-Length", 0)))}
            bar = sys.stderr.isatty()
            pooch.HTTPDownloader(bar, chunk_size=2**16, timeout=TIMEOUT, hooks=hooks)(url, target, None)
        else:
            with Path(url).open("rb") as source:
                check_length(os.fstat(source.fileno()).st_size)
                shutil.copyfileobj(source, target)
