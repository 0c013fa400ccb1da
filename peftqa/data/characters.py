"""Checks of text: of the records, and of questions to an adapter."""


def encodable(text: str) -> str:
    """The same text. Raises ValueError for half of a surrogate pair, which UTF-8 cannot encode."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("contains an unpaired surrogate, which is not a character") from None
    return text


def single_spaced(text: str) -> str:
    """The text with one space for every run of white space, and none at its ends."""
    return " ".join(text.split())
