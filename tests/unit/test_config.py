"""The schema of params.yaml decides no result, so that no stage needs to depend on it."""

import ast
import inspect
from collections.abc import Iterator

import pytest
from pydantic import BaseModel

from experiments.overrides import read_overrides, write_params
from peftqa.config import adapters, errors, params, settings
from peftqa.config.params import check_params, read_yaml
from tests.conftest import ROOT

CLASSES = [
    value
    for module in (adapters, params, settings)
    for value in vars(module).values()
    if inspect.isclass(value) and issubclass(value, BaseModel) and value.__module__ == module.__name__
]
FUNCTIONS = {"read_params", "check_params", "read_yaml", "explain", "shown"}


@pytest.mark.parametrize("cls", CLASSES)
def test_a_class_of_the_schema_has_only_fields_and_validators(cls):
    """A validator of a method or property would show as one; a default other than None would decide something."""
    decorators = cls.__pydantic_decorators__
    validators = {*decorators.field_validators, *decorators.model_validators}
    plain = {"model_config", *cls.model_fields, *validators}
    own = {name for name in vars(cls) if not name.startswith("__") and name not in vars(BaseModel)}
    assert own - plain - {"_abc_impl"} == set()
    defaults = {name: field.default for name, field in cls.model_fields.items() if not field.is_required()}
    assert set(defaults.values()) <= {None}, defaults
    assert all(field.default_factory is None for field in cls.model_fields.values())


def importers() -> Iterator[tuple[str, str]]:
    """Each file outside the schema, and a name that it imports from it."""
    for folder in ("peftqa", "stages", "experiments", "benchmarks"):
        # Below experiments/ there can be clones.
        for file in (ROOT / folder).glob("*.py" if folder == "experiments" else "**/*.py"):
            if "config" in file.relative_to(ROOT).parts:
                continue
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("peftqa.config"):
                    yield from ((f"{file.name}: {node.module}", alias.name) for alias in node.names)


def test_other_code_imports_classes_types_and_few_functions_of_the_schema():
    named = {value: getattr(module, value) for module in (adapters, errors, params, settings) for value in vars(module)}
    for where, name in importers():
        function = inspect.isfunction(named[name]) or isinstance(named[name], str | int | float | tuple | dict | list)
        assert not function or name in FUNCTIONS, f"{where} imports {name}"


@pytest.mark.parametrize("name", [None, *sorted(path.stem for path in (ROOT / "experiments").glob("*.yaml"))])
def test_the_checked_parameters_are_those_of_the_file(name, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    write_params(tmp_path / "params.yaml", read_overrides(name) if name else {})
    values = read_yaml(tmp_path / "params.yaml")
    assert check_params(values).model_dump(exclude_unset=True) == values
