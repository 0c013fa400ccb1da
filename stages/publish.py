"""Make each adapter of `evaluate.variants` ready for the Hub, with its model card: python -m stages.publish

Of several trainings of an adapter, release/ADAPTER/ has the one with the lowest log loss on its validation questions.
"""

import shutil
from pathlib import Path

import numpy as np

from peftqa.errors import UserError
from peftqa.metrics import encode_labels, log_losses
from peftqa.params import Params, read_params
from peftqa.predictions import read_predictions, replicates
from peftqa.report.card import model_card
from stages import workspace


def main() -> None:
    params = read_params(workspace.PARAMS)
    trained = [(name, run) for name in params.adapters for run in params.runs(name)]
    expected = [workspace.ADAPTERS / name / workspace.run_path(*run) for name, run in trained]
    workspace.remove_stale(workspace.ADAPTERS, expected)
    comparison = workspace.read_json(workspace.COMPARISON / "comparison.json")
    with workspace.written(workspace.RELEASE) as partial:
        partial.mkdir()
        for name in [name for name in params.evaluate.variants if name in params.adapters]:
            publish(name, best_run(name, params), params, comparison, partial / name)


def publish(name: str, run: tuple[int, int], params: Params, comparison: dict, target: Path) -> None:
    """The files of one training of an adapter, and the model card beside them."""
    source = workspace.ADAPTERS / name / workspace.run_path(*run)
    if not source.is_dir():
        raise UserError(f"{source} is missing; run `dvc repro`.")
    shutil.copytree(source, target)
    size = workspace.read_json((workspace.PREDICTIONS / name / workspace.run_path(*run)).with_suffix(".json"))
    (target / "README.md").write_text(model_card(name, run, params, comparison, size), encoding="utf-8")
    print(f"{workspace.RELEASE / name}: fold {run[0]}, seed {run[1]}")


def best_run(name: str, params: Params) -> tuple[int, int]:
    """Fold and seed of the run with the lowest log loss on validation; of equal ones the first."""

    def log_loss(run: tuple[int, int]) -> float:
        path = (workspace.PREDICTIONS / name / workspace.run_path(*run)).with_suffix(".csv")
        val = replicates(read_predictions([path], params.data.labels), "val", same_questions=False)
        return float(np.mean(log_losses(val.averaged, encode_labels(val.truth, params.data.labels))))

    return min(params.runs(name), key=log_loss)


if __name__ == "__main__":
    workspace.run(main)
