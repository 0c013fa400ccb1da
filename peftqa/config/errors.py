"""What pydantic finds wrong with a file, as sentences for whoever wrote it."""

from collections.abc import Mapping

from pydantic import ValidationError

LONGEST = 80  # characters of a value that are shown


def explain(error: ValidationError) -> list[str]:
    """A line for each problem: `key.path: value is not allowed: what is allowed`."""
    return [_explain(problem) for problem in error.errors()]


def _explain(problem: Mapping) -> str:
    kind, value, details = problem["type"], problem["input"], problem.get("ctx", {})
    path = [str(part) for part in problem["loc"] if part != "[key]"]  # pydantic adds it if a key is wrong
    if path[:1] == ["adapters"]:
        del path[2:3]  # the adapter's method, which pydantic adds
    if kind.startswith("union_tag"):
        path.append(details["discriminator"].strip("'"))
    where = ".".join(path)
    if kind in ("missing", "union_tag_not_found"):
        return f"{where}: missing key"
    if kind == "unknown_key":
        return f"{'.'.join([*path, details['key']])}: {problem['msg']}"
    if kind == "union_tag_invalid":
        return f"{where}: {details['tag']!r} is not allowed: must be one of {details['expected_tags']}"
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        return f"{where or 'the file'}: must be a group of keys, not {shown(value)}"
    if kind == "list_type":
        example = f", such as [{shown(value)}]" if isinstance(value, str | int | float) else ""
        return f"{where}: must be a list{example}, not {shown(value)}"
    message = problem["msg"].removeprefix("Value error, ")
    if not where:
        return message
    return f"{where}:{'' if isinstance(value, dict) else f' {shown(value)} is not allowed:'} {message}"


def shown(value: object) -> str:
    """A value as Python writes it, cut if it is long."""
    text = repr(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."
