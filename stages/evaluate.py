"""Compute a variant's metrics and curves from the predictions of its runs: python -m stages.evaluate prompt"""

import numpy as np

from peftqa.config.params import read_params
from peftqa.data.files import read_json, write_csv, write_json
from peftqa.errors import UserError
from peftqa.evaluation import metrics
from peftqa.evaluation.curves import curves
from peftqa.evaluation.predictions import leaderboard
from stages import run_stage, runs, workspace
from stages.answers import read_replicates
from stages.stale import remove_stale

SHOWN = ("n", "accuracy", "accuracy_sd", "macro_f1", "log_loss", "val_log_loss", "trainable_params")


def main() -> None:
    params = read_params()
    name = runs.stage_key()
    if name not in params.evaluate.variants:
        known = ", ".join(params.evaluate.variants)
        raise UserError(f"{name!r} is not under evaluate.variants in {workspace.PARAMS}; it lists {known}.")
    folder = runs.PREDICTIONS
    tables, extra_metrics = (runs.run_paths(folder, [name], params, suffix) for suffix in (".csv", ".json"))
    remove_stale(folder / name, [*tables, *extra_metrics])

    test, val = (read_replicates(name, split, params) for split in ("test", "val"))
    labels, bins = params.data.labels, params.evaluate.calibration_bins
    evaluation = metrics.evaluate(test, val, labels, bins, params.evaluate.coverage)
    mean, replicated = evaluation["mean"], evaluation["replicates"].values()
    if len(replicated) > 1 and name in params.adapters:
        mean["accuracy_sd"] = float(np.std([run["accuracy"] for run in replicated], ddof=1))
    if name in {**params.adapters, **params.evaluate.untrained}:
        mean |= metrics.mean_over_replicates([read_json(path) for path in extra_metrics])
    evaluation = metrics.rounded(evaluation)
    # The row of `dvc metrics show`; all the rest for compare and the report.
    row = {key: evaluation["mean"][key] for key in SHOWN if mean.get(key) is not None}
    write_json(workspace.METRICS / f"{name}.json", row)
    write_json(workspace.EVALUATION / name / "metrics.json", evaluation)

    folder = workspace.EVALUATION / name
    write_json(folder / "leaderboard.json", leaderboard(test, labels))
    for curve, points in curves(test.probabilities, test.truth, labels, bins).items():
        points.insert(0, "variant", name)
        write_csv(folder / f"{curve}.csv", points)
    print(
        f"{name}: accuracy {mean['accuracy']:.3f}, macro-F1 {mean['macro_f1']:.3f}, log loss {mean['log_loss']:.3f} "
        f"on {mean['n']} test questions, mean of {len(replicated)} replicate(s)"
    )


if __name__ == "__main__":
    run_stage(main)
