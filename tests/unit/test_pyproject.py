"""What `pip install` installs: all packages that asking an adapter imports."""

import re
import sys
import tomllib
from importlib.metadata import packages_distributions

from tests.conftest import ROOT
from tests.unit.test_dvc_yaml import files_of, imported_names

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def imported_packages(start: list[str]) -> set[str]:
    """Top-level packages from elsewhere that these modules, and those of this repository they import, import."""
    found, waiting, packages = set(), [file for name in start for file in files_of(name)], set()
    while waiting:
        file = waiting.pop()
        if file not in found:
            found.add(file)
            packages |= {name.split(".")[0] for name in imported_names(file)}
            waiting += [other for name in imported_names(file) for other in files_of(name)]
    assert ROOT / "peftqa/config/params.py" in found
    return packages - {"peftqa"} - sys.stdlib_module_names


def test_the_declared_dependencies_are_what_asking_an_adapter_imports():
    declared = {re.split("[<>=~!]", name)[0].lower().replace("-", "_") for name in PROJECT["dependencies"]}
    # Splits and metrics, which asking has none of; the page, an extra of its own; and what comes with pydantic.
    packages = imported_packages(["peftqa.__main__"]) - {"sklearn", "flask", "werkzeug", "pydantic_core"}
    assert [re.split("[<>=~!]", name)[0] for name in PROJECT["optional-dependencies"]["app"]] == ["flask"]
    known = packages_distributions()
    candidates = {name: {found.lower().replace("-", "_") for found in known[name]} for name in packages}
    assert {name for name in packages if not candidates[name] & declared} == set()
    assert declared - set.union(*candidates.values()) == set()
