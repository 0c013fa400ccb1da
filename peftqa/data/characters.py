"""What a text of this project may have in it: in records, and in what an adapter is asked."""


def encodable(text: str) -> str:
    """The same text. Raises ValueError for half of a surrogate pair, which no file can hold as UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("contains an unpaired surrogate, which is not a character") from None
    return text


def single_spaced(text: str) -> str:
    """The text with every run of white space as one space, and none at its ends."""
    return " ".join(text.split())
