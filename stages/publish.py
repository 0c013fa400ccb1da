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

RELEASE = Path("release")


def main() -> None:
    params = read_params(workspace.PARAMS)
    trained = [(name, run) for name in params.adapters for run in params.runs(name)]
    expected = [workspace.ADAPTERS / name / workspace.run_path(*run) for name, run in trained]
    workspace.remove_stale(workspace.ADAPTERS, expected)
    comparison = workspace.read_json(workspace.COMPARISON / "comparison.json")
    shutil.rmtree(RELEASE, ignore_errors=True)
    RELEASE.mkdir()
    for name in [name for name in params.evaluate.variants if name in params.adapters]:
        fold, seed = best_run(name, params)
        source, target = workspace.ADAPTERS / name / workspace.run_path(fold, seed), RELEASE / name
        try:
            shutil.copytree(source, target)
        except FileNotFoundError:
            raise UserError(f"{source} is missing; run `dvc repro`.") from None
        size = workspace.read_json((workspace.PREDICTIONS / name / workspace.run_path(fold, seed)).with_suffix(".json"))
        card = model_card(name, (fold, seed), params, comparison, size)
        (target / "README.md").write_text(card, encoding="utf-8")
        print(f"{target}: fold {fold}, seed {seed}")


def best_run(name: str, params: Params) -> tuple[int, int]:
    """Fold and seed of the run with the lowest log loss on validation; of equal ones the first."""

    def log_loss(run: tuple[int, int]) -> float:
        path = (workspace.PREDICTIONS / name / workspace.run_path(*run)).with_suffix(".csv")
        val = replicates(read_predictions([path], params.data.labels), "val", same_questions=False)
        return float(np.mean(log_losses(val.averaged, encode_labels(val.truth, params.data.labels))))

    return min(params.runs(name), key=log_loss)


if __name__ == "__main__":
    workspace.run(main)
