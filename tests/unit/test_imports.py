"""What importing a module brings with it: light stages must stay light."""

import subprocess
import sys

import pytest

from tests.conftest import ROOT


def loaded(statement: str) -> set[str]:
    """Names of the modules that a new process has after the statement."""
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(result.stdout.split())


@pytest.mark.parametrize(
    "stage", ["download", "clean", "split", "fetch_model", "baselines", "evaluate", "compare", "select"]
)
def test_a_stage_that_runs_no_model_does_not_import_torch(stage):
    assert not {"torch", "transformers", "peft", "accelerate", "dvc"} & loaded(f"import stages.{stage}")
