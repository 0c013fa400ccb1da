"""What importing a module brings with it: light stages must stay light, and a docstring must stay one."""

import ast
import subprocess
import sys

import pytest

from tests.conftest import ROOT


def loaded(statement: str) -> set[str]:
    """Names of the modules that a new process has after the statement."""
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(result.stdout.split())


@pytest.mark.parametrize("package", ["peftqa", "peftqa/fetch"])
def test_a_package_that_no_stage_depends_on_is_a_docstring_and_nothing_else(package):
    module = ast.parse((ROOT / package / "__init__.py").read_text(encoding="utf-8"))
    assert ast.get_docstring(module) and len(module.body) == 1


@pytest.mark.parametrize(
    "module",
    [
        "config.params",
        "model.adapters",
        "data.records",
        "evaluation.predictions",
        "evaluation.metrics",
        "evaluation.curves",
        "evaluation.baselines",
        "statistics.comparison",
        "report.render",
    ],
)
def test_what_runs_no_model_imports_no_torch(module):
    heavy = {"torch", "transformers", "peft", "accelerate", "dvc"}
    assert not heavy & loaded(f"import peftqa.{module}")


@pytest.mark.slow
def test_the_backbone_does_not_import_the_fast_path_by_itself():
    assert not {name for name in loaded("import peftqa.model.backbone") if name.startswith("peftqa.model.fast")}
