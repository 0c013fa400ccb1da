"""Compare the variants of `evaluate.variants` on the test questions: python -m stages.compare

Writes comparison/comparison.json (its structure: peftqa/statistics/comparison.py), the table of pairs that git keeps,
and for `dvc plots` the curves of all variants together.
"""

import pandas as pd

from peftqa.config.params import BASELINES, Params, read_params
from peftqa.data.records import read_csv, read_records, read_table
from peftqa.errors import UserError
from peftqa.evaluation.baselines import describe_humans, human_answers
from peftqa.evaluation.curves import join_curves, training_curve
from peftqa.evaluation.metrics import rounded
from peftqa.evaluation.predictions import Replicates, read_predictions, replicates
from peftqa.statistics.comparison import as_text, compare, pair_table
from stages import workspace

CURVES = ("roc", "precision_recall", "reliability", "confusion", "risk_coverage")
TRAINING_CURVES = {
    "loss": {"training": "train/loss", "validation": "val/loss"},
    "log_loss": {"validation": "val/log_loss"},
}


def main() -> None:
    params = read_params(workspace.PARAMS)
    names = params.evaluate.variants
    remove_stale(params)
    tables = {
        name: read_predictions(workspace.run_paths(workspace.PREDICTIONS, [name], params, ".csv"), params.data.labels)
        for name in names
    }
    test = read_test(tables, params)
    n_train = len(read_table(workspace.fold_table(params.split.folds[0], "train")))
    n_val = min(len(read_table(workspace.fold_table(fold, "val"))) for fold in params.split.folds)
    epochs = {name: kept_epochs(name, params) for name in names if name in params.adapters}
    evaluation = {name: workspace.read_json(workspace.EVALUATION / name / "metrics.json") for name in names}
    comparison = compare(test, evaluation, epochs, n_train, n_val, params)
    comparison["humans"] = humans(test[names[0]], params)
    comparison = rounded(comparison)
    workspace.write_json(workspace.COMPARISON / "comparison.json", comparison)
    workspace.write_csv(workspace.METRICS / "pairs.csv", pair_table(comparison))
    write_curves(params)
    print(as_text(comparison))


def remove_stale(params: Params) -> None:
    """Delete what dropped runs and variants left in the folders that this stage reads."""
    answering = [*params.adapters, *params.evaluate.untrained]
    predictions, curves = workspace.PREDICTIONS, workspace.TRAINING_CURVES
    runs = [
        path for suffix in (".csv", ".json") for path in workspace.run_paths(predictions, answering, params, suffix)
    ]
    workspace.remove_stale(predictions, [*runs, *(predictions / name for name in BASELINES)])
    workspace.remove_stale(workspace.EVALUATION, [workspace.EVALUATION / name for name in params.evaluate.variants])
    workspace.remove_stale(curves, workspace.run_paths(curves, params.adapters, params))


def read_test(tables: dict[str, pd.DataFrame], params: Params) -> dict[str, Replicates]:
    """Each variant's predictions on test. Raises UserError unless all are of the same questions."""
    try:
        variants = {name: replicates(table, "test", params.split.same_test_questions) for name, table in tables.items()}
    except UserError as error:
        raise UserError(f"{workspace.PREDICTIONS}: {error}") from None
    first, *others = variants
    for name in others:
        if (variants[name].ids, variants[name].truth) != (variants[first].ids, variants[first].truth):
            raise UserError(f"{name} and {first} answer different questions of split 'test'; run `dvc repro`.")
    return variants


def humans(test: Replicates, params: Params) -> dict[str, dict]:
    """How the file's annotators answer the test questions; nobody has answered those of synthetic data."""
    if params.data.synthetic:
        return {}
    answers = human_answers(read_records(workspace.RAW_RECORDS), test.ids)
    labels, confidence = params.data.labels, params.compare.confidence
    return {name: describe_humans(given, test.truth, labels, confidence) for name, given in answers.items()}


def kept_epochs(name: str, params: Params) -> list[dict]:
    """Of each run of an adapter, the epoch whose weights were kept, and its last one."""
    summaries = {run: workspace.training_summary(name, run) for run in params.runs(name)}
    return [
        {"fold": fold, "seed": seed, "kept": summary["best"]["epoch"], "last": summary["epoch"]}
        for (fold, seed), summary in summaries.items()
    ]


def read_training_curve(name: str, run: tuple[int, int], curve: str) -> pd.DataFrame:
    folder = workspace.run_path(workspace.TRAINING_CURVES, name, run) / "plots/metrics"
    return training_curve(folder, curve, TRAINING_CURVES[curve])


def write_curves(params: Params) -> None:
    """Put the variants' curves together, one table a curve."""
    for curve in CURVES:
        # As text, so that numbers keep the digits that they were written with.
        parts = {name: read_csv(workspace.EVALUATION / name / f"{curve}.csv", str) for name in params.evaluate.variants}
        workspace.write_csv(workspace.COMPARISON / f"{curve}.csv", join_curves(parts))
    trained = [name for name in params.evaluate.variants if name in params.adapters]
    for curve in TRAINING_CURVES:
        parts = {
            name: pd.concat(
                read_training_curve(name, run, curve).assign(fold=run[0], seed=run[1]) for run in params.runs(name)
            )
            for name in trained
        }
        workspace.write_csv(workspace.COMPARISON / f"{curve}.csv", join_curves(parts))


if __name__ == "__main__":
    workspace.run_stage(main)
