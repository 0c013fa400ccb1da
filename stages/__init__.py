"""A module for each stage of dvc.yaml; and, here, how every one of them ends: in its result, or in one sentence.

Importing this package sets the hook for uncaught exceptions. It does so before a stage's slow imports, so that Ctrl-C
during them also ends in one sentence. How a stage ends changes no result: nothing in dvc.yaml depends on this file.
"""

import errno
import os
import re
import shutil
import sys
from pathlib import Path
from types import TracebackType

from peftqa.errors import UserError, one_line

INTERRUPTED = "interrupted; the same command goes on where this one stopped."
DISK_FULL_BELOW = 2**16  # bytes free
REMEDIES = {
    errno.ENOSPC: "free some space there",
    errno.EDQUOT: "free some space there",
    errno.EFBIG: "raise that limit (ulimit -f)",
    errno.EACCES: "give yourself the right to it",
    errno.EPERM: "give yourself the right to it",
    errno.EROFS: "make it writable",
    errno.ENOENT: "restore it",
    errno.ENOTDIR: "move the file that stands where a folder should be",
    errno.EEXIST: "move the file that stands where a folder should be",
    errno.EISDIR: "move the folder that stands where a file should be",
}


def report_exception(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """`sys.excepthook`: one sentence for what the user can mend; a traceback for anything else, which is a bug here."""
    sentence = explain(error)
    if sentence is None:
        sys.__excepthook__(kind, error, trace)
    else:
        print(f"error: {sentence}", file=sys.stderr)


def explain(error: BaseException) -> str | None:
    """One sentence for an error that says what is wrong, where, and what to do; None for an error of another kind."""
    if isinstance(error, UserError):
        return one_line(error)
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    # Libraries written in Rust (safetensors, tokenizers) give the system's error as a number in their text.
    number = re.search(r"\(os error (\d+)\)", str(error))
    code = error.errno if isinstance(error, OSError) else int(number[1]) if number else None
    if code is None and shutil.disk_usage(".").free < DISK_FULL_BELOW:
        code = errno.ENOSPC  # torch then says only "iostream error"
    if code is None:
        return one_line(error) if isinstance(error, OSError) else None
    where = getattr(error, "filename", None) or f"a file below {Path.cwd()}"
    return f"{where}: {os.strerror(code)}; {REMEDIES.get(code, 'mend that')}, and run the same command again."


sys.excepthook = report_exception
