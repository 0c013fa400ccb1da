"""dvc.yaml against the code it runs: no result can be stale, and no code that does not count makes one so."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from peftqa.config.params import TrainSettings
from tests.conftest import ROOT

STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
# Code that no result depends on: the schema of params.yaml (tests/unit/test_config.py proves it), and how a program
# starts and ends.
EXEMPT = (ROOT / "peftqa/config", ROOT / "peftqa/program.py", ROOT / "stages/__init__.py")


def imported_names(file: Path) -> Iterator[str]:
    """Dotted names that a file imports, anywhere in it but where only type checkers look."""
    waiting: list[ast.AST] = [ast.parse(file.read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        waiting += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} imports relatively"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def files_of(name: str) -> Iterator[Path]:
    """Files of this repository that importing `name` runs: the module, and the packages that it is in."""
    parts = name.split(".")
    for length in range(1, len(parts) + 1):
        path = ROOT.joinpath(*parts[:length])
        yield from (file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file())


def named_files(file: Path) -> Iterator[Path]:
    """Files that are not Python, below the folder of a module or template, whose name is in its text."""
    text = file.read_text(encoding="utf-8")
    for path in file.parent.rglob("*"):
        if path.is_file() and path.suffix not in (".py", ".pyc") and path.name in text:
            yield path


def is_docstring_alone(file: Path) -> bool:
    return file.name == "__init__.py" and len(ast.parse(file.read_text(encoding="utf-8")).body) == 1


def needed_code(file: Path) -> set[str]:
    """Paths of the code that a file's results depend on: itself, and what it imports or names, directly or not."""
    found, waiting = set(), [file]
    while waiting:
        file = waiting.pop()
        if file in found or any(file.is_relative_to(path) for path in EXEMPT):
            continue
        if file.suffix == ".py":
            if is_docstring_alone(file):
                continue
            waiting += [other for name in imported_names(file) for other in files_of(name)]
        found.add(file)
        waiting += named_files(file)
    return {str(path.relative_to(ROOT)) for path in found}


def definition(name: str) -> dict:
    return STAGES[name].get("do", STAGES[name])


def code_deps(name: str) -> set[str]:
    return {dep for dep in definition(name)["deps"] if Path(dep).parts[0] in ("peftqa", "stages")}


def covers(dep: str, path: str) -> bool:
    return Path(path).is_relative_to(dep)


def stage_module(name: str) -> Path:
    return ROOT / (definition(name)["cmd"].split()[-1].replace(".", "/") + ".py")


def code_below(dep: str) -> set[str]:
    """The files of code that a dep is or has below it."""
    path = ROOT / dep
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file() and file.suffix != ".pyc"]
    code = [file for file in files if file.suffix != ".py" or not is_docstring_alone(file)]
    return {str(file.relative_to(ROOT)) for file in code}


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_depends_on_all_code_that_it_needs_and_nothing_else(name):
    declared = set().union(*map(code_below, code_deps(name)))
    needed = needed_code(stage_module(name))
    assert (needed - declared, declared - needed) == (set(), set())


@pytest.mark.parametrize("name", STAGES)
def test_deps_are_in_order_and_name_nothing_twice(name):
    deps = definition(name)["deps"]
    assert len(set(deps)) == len(deps)
    assert not [(dep, other) for dep in deps for other in deps if dep != other and covers(dep, other)]


@pytest.mark.parametrize("name", STAGES)
def test_a_command_is_the_stages_module_without_a_parameter(name):
    """A shell would read a value of params.yaml in a command."""
    command = definition(name)["cmd"].removeprefix("exec ")
    assert command == f"python -m stages.{name.removesuffix('_untrained')}" and stage_module(name).is_file()


def outputs(name: str, kind: str) -> dict[str, dict]:
    """Path and options of a stage's `outs`, `metrics` or `plots`."""
    entries = definition(name).get(kind, [])
    return dict(next(iter(entry.items())) if isinstance(entry, dict) else (entry, {}) for entry in entries)


def test_what_git_keeps_is_declared_as_a_metric_or_plot_in_the_folder_metrics():
    """An uncached output that is neither would keep its stage from being restored from DVC's run cache."""
    for name in STAGES:
        assert all(options.get("cache", True) for options in outputs(name, "outs").values()), name
        for path, options in (outputs(name, "metrics") | outputs(name, "plots")).items():
            assert options["cache"] is False and path.startswith("metrics/"), path
        assert not [path for path in outputs(name, "outs") if path.startswith("metrics/")]


def test_a_run_is_one_adapter_one_fold_and_one_seed():
    """So that one seed more trains that seed alone."""
    for name in ("train", "predict"):
        assert list(STAGES[name]["matrix"]) == ["adapter", "fold", "seed"]
        for path in {**outputs(name, "outs")}:
            assert "${item.adapter}/fold-${item.fold}/seed-${item.seed}" in path
    assert list(STAGES["predict_untrained"]["matrix"]) == ["variant", "fold"]
    for name in ("train", "predict", "predict_untrained"):
        assert not [dep for dep in definition(name)["deps"] if dep in ("data/split", "predictions")]
        assert "train" not in definition(name)["params"] and "train.seeds" not in definition(name)["params"]
        assert not [key for key in definition(name)["params"] if key in ("adapters", "split", "evaluate", "selected")]


def test_training_depends_on_all_of_train_but_the_seeds():
    named = {key.removeprefix("train.") for key in definition("train")["params"] if key.startswith("train.")}
    assert named == set(TrainSettings.model_fields) - {"seeds"}
