"""The one kind of error that a user is meant to read, and any error in one line."""

import re


class UserError(Exception):
    """Something the user can mend. The message is one sentence: what is wrong, where, and what to do."""


def one_line(error: BaseException) -> str:
    """An error's text on one line, without control characters; if it has none, its class in words: `read timeout`."""
    text = "".join(character if character.isprintable() else " " for character in str(error))
    return " ".join(text.split()) or re.sub("(?<=[a-z])(?=[A-Z])", " ", type(error).__name__).lower()
