"""Files and texts of other people: read, or refused with what is wrong and where."""

from __future__ import annotations

import csv
import io
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from peftqa.data.records import single_spaced
from peftqa.errors import UserError

MAX_CHARACTERS = 100_000  # of a question or an abstract; PubMedQA's longest abstract has about 4,000
FORMATS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16", b"PK\x03\x04": "an Excel workbook or a ZIP file"}
# The start of a dictionary or list that a program wrote into a cell, as in data sets on the Hub. "[Article in Polish]"
# is text.
OF_A_PROGRAM = re.compile(r"""(array\(|\()?[\[{]\s*(['"\[\]{}]|\d+\s*:|[-\d.,\s]*\]?$)""")


def read_rows(text: str, source: Path) -> Iterator[list[str]]:
    """The rows of a CSV file, its first one too, without empty lines. Raises UserError if two differ in length."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    begin, width = 1, None
    try:
        for row in reader:
            width = width or len(row)
            if row and len(row) != width:
                raise UserError(f"{source}: line {begin} has {len(row)} cells, but the first line has {width}.")
            if row:
                yield row
            begin = reader.line_num + 1
    except csv.Error as error:
        if "end of data" in str(error):
            problem = "opens a quote that is never closed"
        elif reader.line_num > begin:
            problem = f"opens a quote that is never closed: the quote in line {reader.line_num} is inside a cell"
        else:
            problem = 'has a quote inside a quoted cell; write it twice ("")'
        raise UserError(f"{source}: line {begin} {problem}.") from None


def read_file(path: Path, limit: int) -> bytes:
    """The bytes of a file or of a pipe. Raises UserError if it is something else, or is longer than `limit`."""
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode)):
        kind = "a folder" if stat.S_ISDIR(mode) else "a device"
        raise UserError(f"{path} is {kind}; name a file, or /dev/stdin for a pipe.")
    with path.open("rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise UserError(f"{path} is longer than {limit:,} bytes; split it.")
    return content


def decode(content: bytes, source: Path | str, wanted: str = "UTF-8") -> str:
    """The text in a file. Raises UserError, which says what it seems to be, if it is not UTF-8 or has a NUL byte.

    wanted: what to save it as.
    """
    nul, start = content.find(0), content[:1000]
    seems = next((name for sign, name in FORMATS.items() if content.startswith(sign)), "")
    if seems or start.count(0) > len(start) / 4:
        raise UserError(f"{source}: it seems to be {seems or 'UTF-16'}; save it as {wanted}.")
    try:
        text, bad, problem = content.decode("utf-8-sig"), nul, "has a NUL byte, which is not text"
    except UnicodeDecodeError as error:
        bad, others = error.start, content.translate(None, bytes(range(128)))
        few = len(others) < len(content) / 5 and not set(others) & {0x81, 0x8D, 0x8F, 0x90, 0x9D}  # not in Windows-1252
        is_1252 = few and content.decode("utf-8", "ignore").isascii()
        problem = f"is not UTF-8; it seems to be {'Windows-1252' if is_1252 else 'in another encoding, or damaged'}"
    if bad < 0:
        return text
    raise UserError(f"{source}: line {len(content[: bad + 1].splitlines())} {problem}: save it as {wanted}.")


def plain_text(name: str, text: str) -> str:
    """The text with single spaces, as `clean` leaves it. Raises UserError about the `name` if it is not plain text."""
    if len(text) > MAX_CHARACTERS:
        raise UserError(f"the {name} has {len(text):,} characters; at most {MAX_CHARACTERS:,} are read")
    if re.search("[\ud800-\udfff]", text):  # what Python makes of bytes in another encoding
        raise UserError(f"the {name} is not UTF-8 text")
    text = single_spaced(text)
    if not text:
        raise UserError(f"the {name} is empty")
    if OF_A_PROGRAM.match(text):
        raise UserError(f"the {name} is a list or a dictionary as a program writes it; keep only the text in it")
    return text
