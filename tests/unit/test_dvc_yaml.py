"""dvc.yaml against the code it runs: no result can be stale."""

import ast
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.conftest import ROOT

STAGES = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]


def imported_modules(file: Path) -> set[Path]:
    """Files of this repository that `file` imports, straight or by way of others, itself included."""
    found, waiting = set(), [file]
    while waiting:
        file = waiting.pop()
        if file in found:
            continue
        found.add(file)
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            else:
                continue
            for name in names:
                parts = name.split(".")
                for length in range(1, len(parts) + 1):
                    path = ROOT.joinpath(*parts[:length])
                    waiting += [f for f in (path.with_suffix(".py"), path / "__init__.py") if f.is_file()]
    return found


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_depends_on_every_module_it_imports_and_on_no_other(name):
    stage = STAGES[name].get("do", STAGES[name])
    module = stage["cmd"].split()[2]
    assert module.startswith("stages."), "every stage runs as python -m stages.NAME"
    wanted = {str(path.relative_to(ROOT)) for path in imported_modules(ROOT / (module.replace(".", "/") + ".py"))}
    assert {dep for dep in stage["deps"] if dep.endswith(".py")} == wanted


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_that_uses_the_kernels_depends_on_their_source(name):
    deps = STAGES[name].get("do", STAGES[name])["deps"]
    assert ("peftqa/kernels.py" in deps) == ("peftqa/kernels.cpp" in deps)


def test_the_import_search_finds_indirect_imports():
    found = {path.name for path in imported_modules(ROOT / "stages/train.py")}
    assert {"train.py", "training.py", "kv_prefix.py", "errors.py", "workspace.py", "__init__.py"} <= found


def test_only_the_variants_and_the_selected_one_are_metrics():
    declared = [next(iter(m)) for s in STAGES.values() for m in s.get("do", s).get("metrics", [])]
    assert declared == ["metrics/${key}.json", "metrics/selected.json"]


def test_all_of_metrics_is_tracked_by_git_and_nothing_else():
    for stage in STAGES.values():
        for out in stage.get("do", stage).get("outs", []):
            path, options = next(iter(out.items())) if isinstance(out, dict) else (out, {})
            assert path.startswith("metrics/") == (options.get("cache") is False), path
