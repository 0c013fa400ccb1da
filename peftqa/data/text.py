"""Texts of other people: read, or refused with what is wrong and where."""

from __future__ import annotations

import re
from pathlib import Path

from peftqa.data.records import single_spaced
from peftqa.errors import UserError

MAX_CHARACTERS = 100_000  # of a question or an abstract; PubMedQA's longest abstract has about 4,000
BYTE_ORDER_MARK = b"\xef\xbb\xbf"  # which Excel writes before UTF-8
# How a dictionary or a list begins that a program has written into a cell, as in data sets on the Hub. "[Article in
# Polish]" is text.
OF_A_PROGRAM = re.compile(r"""(array\(|\()?[\[{]\s*(['"\[\]{}]|\d+\s*:|[-\d.,\s]*\]?$)""")


def decode(content: bytes, source: Path | str) -> str:
    """The text in a file. Raises UserError with the line if it is not UTF-8 or has a NUL byte."""
    content = content.removeprefix(BYTE_ORDER_MARK)
    try:
        text, bad = content.decode(), content.find(0)
    except UnicodeDecodeError as error:
        bad = error.start
    if bad < 0:
        return text
    line = len(content[: bad + 1].splitlines())
    raise UserError(f"{source}: line {line} is not UTF-8 text; save the file as UTF-8 (in Excel: CSV UTF-8).")


def plain_text(name: str, text: str) -> str:
    """The text with single spaces, as `clean` leaves it. Raises UserError, which calls it `name`, if it is not one."""
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
