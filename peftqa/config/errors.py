"""What pydantic finds wrong with a file, as sentences for whoever wrote it."""

from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from types import MappingProxyType

from pydantic import ValidationError

LONGEST = 80  # characters of a value that are shown


def explain(
    error: ValidationError,
    allowed: Callable[[list[str]], Iterable[str]] = lambda path: (),
    location: Callable[[list[str]], list[str]] = lambda path: path,
    patterns: Mapping[str, str] = MappingProxyType({}),
    single: str = "{where}: must be a list, not {value}",
) -> list[str]:
    """A line for each problem: `key.path: value: what is allowed`.

    allowed: the keys that the group at a path may have. location: from pydantic's path to the one in the file.
    patterns: what is allowed, in words, by regular expression. single: the line for one value instead of a list;
    {value} is the value as Python writes it, {text} as a shell does.
    """
    return [_explain(problem, allowed, location, patterns, single) for problem in error.errors()]


def _explain(problem: Mapping, allowed: Callable, location: Callable, patterns: Mapping, single: str) -> str:
    path = location([str(part) for part in problem["loc"]])
    kind, value, details = problem["type"], problem["input"], problem.get("ctx", {})
    where = ".".join(path)
    if kind == "missing":
        return f"{where}: missing key"
    if kind == "extra_forbidden":
        known = list(allowed(path[:-1]))
        close = get_close_matches(path[-1], known, n=1)
        hint = f"; did you mean {close[0]}?" if close else f"; allowed: {', '.join(known)}"
        return f"{where}: unknown key{hint if known else ''}"
    if kind.startswith("union_tag"):
        key, tag = details["discriminator"].strip("'"), details.get("tag")
        one_of = ", ".join(map(repr, allowed([*path, key])))
        return f"{where}.{key}: {f'{tag!r} is not allowed' if tag else 'missing key'}: must be one of {one_of}"
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        return f"{where or 'the file'}: must be a group of keys, not {shown(value)}"
    if kind == "list_type":
        line = single if isinstance(value, str | int | float) else "{where}: must be a list, not {value}"
        return line.format(where=where, value=shown(value), text=value)
    message = patterns.get(details.get("pattern"), problem["msg"].removeprefix("Value error, "))
    if not where:
        return message
    return f"{where}:{'' if isinstance(value, dict) else f' {shown(value)} is not allowed:'} {message}"


def shown(value: object) -> str:
    """A value as Python writes it, cut if it is long."""
    text = repr(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."
