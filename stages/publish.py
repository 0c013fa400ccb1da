"""Make each adapter of `evaluate.variants` ready for the Hub, with its model card: python -m stages.publish

If an adapter was trained several times, the training with the lowest validation log loss is released.
"""

import shutil
from pathlib import Path

from peftqa.config.params import Params, read_params
from peftqa.data.files import atomic_write, read_json
from peftqa.errors import UserError
from peftqa.model.task import read_task
from peftqa.report.card import model_card
from stages import run_stage, runs, workspace
from stages.stale import remove_stale
from stages.summary import training_summary


def main() -> None:
    params = read_params()
    trained = runs.run_paths(runs.ADAPTERS, params.adapters, params)
    remove_stale(runs.ADAPTERS, trained)
    comparison = read_json(workspace.COMPARISON / "comparison.json")
    with atomic_write(workspace.RELEASE) as partial:
        partial.mkdir()
        for name in [name for name in params.evaluate.variants if name in params.adapters]:
            losses = {run: training_summary(name, run)["best"]["val_log_loss"] for run in runs.runs_of(name, params)}
            publish(name, min(losses, key=losses.get), params, comparison, partial / name)


def publish(name: str, run: tuple[int, int], params: Params, comparison: dict, target: Path) -> None:
    """The files of one training of an adapter, and the model card beside them."""
    source = runs.run_path(runs.ADAPTERS, name, run)
    if not source.is_dir():
        raise UserError(f"{source} is missing; run `dvc repro`.")
    read_task(source)  # refuses weights that are damaged
    shutil.copytree(source, target)
    size = read_json(runs.run_path(runs.PREDICTIONS, name, run, ".json"))
    (target / "README.md").write_text(
        model_card(name, run, params, comparison, size, len(runs.runs_of(name, params))), encoding="utf-8"
    )
    print(f"{workspace.RELEASE / name}: fold {run[0]}, seed {run[1]}")


if __name__ == "__main__":
    run_stage(main)
