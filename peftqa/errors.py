"""The error that a user is meant to read, and any error in one line."""

import re


class UserError(Exception):
    """Something the user can put right. The message is one sentence: what is wrong, where, and what to do."""


def one_line(text: object) -> str:
    """An error's text, or any other, on one line and without control characters.

    An error without a text gives its class in words: `read timeout`. Names from other people's files go through this
    before they are printed, so that no escape sequence reaches a terminal.
    """
    line = " ".join("".join(character if character.isprintable() else " " for character in str(text)).split())
    if line or not isinstance(text, BaseException):
        return line
    return re.sub("(?<=[a-z])(?=[A-Z])", " ", type(text).__name__).lower()
