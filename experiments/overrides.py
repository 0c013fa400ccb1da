"""What an experiment changes: experiments/NAME.yaml, and params.yaml with these changes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ruamel.yaml import YAML

from peftqa.config.params import Params, check_params, read_params, read_yaml
from peftqa.errors import UserError
from stages import workspace

FOLDER = Path("experiments")


def known_names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def read_overrides(name: str) -> dict[str, object]:
    """What experiments/NAME.yaml changes, as {"train.epochs": 6}; the files that it includes come first.

    Raises UserError if one of them is missing or is not such a file.
    """
    return {key: value for _, values in _files(name) for key, value in values.items()}


def files_of(name: str) -> list[Path]:
    """experiments/NAME.yaml and the files that it includes. Raises UserError as `read_overrides` does."""
    return [path for path, _ in _files(name)]


def _files(name: str, including: tuple[str, ...] = ()) -> Iterator[tuple[Path, dict[str, object]]]:
    """Each file with what it changes, in the order in which they apply. including: the files that include it."""
    path = FOLDER / f"{name}.yaml"
    if not re.fullmatch(r"\w[\w-]*", name):  # git and DVC accept such a name; they would check it only at the end
        raise UserError(
            f"{name!r} cannot be the name of an experiment; rename its file in {FOLDER}/: letters, digits, `_` and `-`."
        )
    if name in including:
        raise UserError(f"{path} includes itself ({' -> '.join((*including, name))}); remove one of these includes.")
    if not path.is_file():
        raise UserError(f"there is no {path}; there are: {', '.join(known_names())}.")
    values = read_yaml(path)
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise UserError(f"{path} must have lines like `train.epochs: 6`.")
    included = values.pop("include", [])
    for other in included if isinstance(included, list) else [included]:
        yield from _files(str(other), (*including, name))
    yield path, values


def write_params(path: Path, overrides: dict[str, object], base: Path = workspace.PARAMS) -> Params:
    """Write to `path` what `base` says, with the overrides; an equal file is left as it is.

    Returns what it then says. Raises UserError for a key or a value that is not allowed.
    """
    read_params(base)  # so that a fault in it is not blamed on the experiment
    yaml = YAML()
    params = yaml.load(base)
    for key, value in overrides.items():
        *groups, last = key.split(".")
        group = params
        for name in groups:
            group = group.get(name)
            if not isinstance(group, dict):
                raise UserError(
                    f"{key}: params.yaml lacks a group {name!r}; add a new adapter whole: `adapters.mine: {{...}}`."
                )
        group[last] = value
    partial = path.with_name("params.yaml.partial")
    try:
        yaml.dump(params, partial)
    except RecursionError:
        raise UserError("the experiment's changes are nested too deeply; a parameter is a value or a list.") from None
    checked = check_params(read_yaml(partial), "params.yaml with the experiment's changes")
    if path.exists() and path.read_bytes() == partial.read_bytes():
        partial.unlink()
    else:
        partial.replace(path)
    return checked
