"""Make each adapter of `evaluate.variants` ready for the Hub, with its model card: python -m stages.publish

Of several trainings of an adapter, release/ADAPTER/ has the one whose best epoch has the lowest validation log loss.
"""

import shutil
from pathlib import Path

from peftqa.config.params import Params, read_params
from peftqa.errors import UserError
from peftqa.model.task import read_task
from peftqa.report.card import model_card
from stages import workspace


def main() -> None:
    params = read_params(workspace.PARAMS)
    trained = workspace.run_paths(workspace.ADAPTERS, params.adapters, params)
    workspace.remove_stale(workspace.ADAPTERS, trained)
    comparison = workspace.read_json(workspace.COMPARISON / "comparison.json")
    with workspace.atomic_write(workspace.RELEASE) as partial:
        partial.mkdir()
        for name in [name for name in params.evaluate.variants if name in params.adapters]:
            losses = {run: workspace.training_summary(name, run)["best"]["val_log_loss"] for run in params.runs(name)}
            publish(name, min(losses, key=losses.get), params, comparison, partial / name)


def publish(name: str, run: tuple[int, int], params: Params, comparison: dict, target: Path) -> None:
    """The files of one training of an adapter, and the model card beside them."""
    source = workspace.run_path(workspace.ADAPTERS, name, run)
    if not source.is_dir():
        raise UserError(f"{source} is missing; run `dvc repro`.")
    read_task(source)  # refuses weights that are damaged
    shutil.copytree(source, target)
    size = workspace.read_json(workspace.run_path(workspace.PREDICTIONS, name, run, ".json"))
    (target / "README.md").write_text(model_card(name, run, params, comparison, size), encoding="utf-8")
    print(f"{workspace.RELEASE / name}: fold {run[0]}, seed {run[1]}")


if __name__ == "__main__":
    workspace.run_stage(main)
