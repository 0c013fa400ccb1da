"""Compute a variant's metrics and curves from the predictions of its runs: python -m stages.evaluate prompt"""

import numpy as np

from peftqa.config.params import BASELINES, read_params
from peftqa.data.records import read_table
from peftqa.errors import UserError
from peftqa.evaluation import metrics
from peftqa.evaluation.curves import curves
from peftqa.evaluation.predictions import check_questions, leaderboard, read_predictions, replicates
from stages import workspace

SHOWN = ("n", "accuracy", "accuracy_sd", "macro_f1", "log_loss", "val_log_loss", "trainable_params")


def main() -> None:
    params = read_params(workspace.PARAMS)
    name = workspace.stage_key()
    if name not in params.evaluate.variants:
        known = ", ".join(params.evaluate.variants)
        raise UserError(f"no variant {name!r} under evaluate.variants in {workspace.PARAMS}; there are: {known}.")
    folder = workspace.PREDICTIONS
    tables, extra_metrics = (workspace.run_paths(folder, [name], params, suffix) for suffix in (".csv", ".json"))
    workspace.remove_stale(folder / name, [*tables, *extra_metrics])

    table = read_predictions(tables, params.data.labels)
    splits = [(fold, split) for fold in params.split.folds for split in ("val", "test")]
    try:
        check_questions(table, params.runs(name), {key: read_table(workspace.fold_table(*key)) for key in splits})
        test = replicates(table, "test", params.split.same_test_questions)
        val = replicates(table, "val", same_questions=False)
    except UserError as error:
        raise UserError(f"{folder / name}: {error}") from None
    labels, bins = params.data.labels, params.evaluate.calibration_bins
    evaluation = metrics.evaluate(test, val, labels, bins, params.evaluate.coverage)
    mean, runs = evaluation["mean"], evaluation["replicates"].values()
    if len(runs) > 1 and name in params.adapters:
        mean["accuracy_sd"] = float(np.std([run["accuracy"] for run in runs], ddof=1))
    if name not in BASELINES:
        mean |= metrics.mean_over_replicates([workspace.read_json(path) for path in extra_metrics])
    evaluation = metrics.rounded(evaluation)
    # The row of `dvc metrics show`; all the rest for compare and the report.
    row = {key: evaluation["mean"][key] for key in SHOWN if mean.get(key) is not None}
    workspace.write_json(workspace.METRICS / f"{name}.json", row)
    workspace.write_json(workspace.EVALUATION / name / "metrics.json", evaluation)

    folder = workspace.EVALUATION / name
    workspace.write_json(folder / "leaderboard.json", leaderboard(test, labels))
    for curve, points in curves(test.probabilities, test.truth, labels, bins).items():
        points.insert(0, "variant", name)
        workspace.write_csv(folder / f"{curve}.csv", points)
    print(
        f"{name}: accuracy {mean['accuracy']:.3f}, macro-F1 {mean['macro_f1']:.3f}, log loss {mean['log_loss']:.3f} "
        f"on {mean['n']} test questions, mean of {len(runs)} replicate(s)"
    )


if __name__ == "__main__":
    workspace.run_stage(main)
