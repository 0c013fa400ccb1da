"""Compare the variants of `evaluate.variants` on the test questions: python -m stages.compare

The stage writes comparison/comparison.json (its structure: peftqa/statistics/comparison.py), the table of pairs that
git keeps, and, for `dvc plots`, the curves of all variants together.
"""

from typing import get_args

import pandas as pd

from peftqa.config.params import Params, read_params
from peftqa.config.settings import Baseline
from peftqa.data.files import read_csv, read_json, read_table, write_csv, write_json
from peftqa.data.records import read_records
from peftqa.errors import UserError
from peftqa.evaluation.humans import describe_humans
from peftqa.evaluation.metrics import rounded
from peftqa.evaluation.palette import variant_color
from peftqa.evaluation.predictions import Replicates
from peftqa.statistics.comparison import as_text, compare, pair_table
from stages import run_stage, runs, workspace
from stages.answers import read_replicates
from stages.stale import remove_stale as remove_stale_files
from stages.summary import training_summary

CURVES = ("roc", "precision_recall", "reliability", "confusion", "risk_coverage")
# For each curve, the columns of a run's table of epochs that it draws, and the name of their split in the plot.
TRAINING_CURVES = {
    "loss": {"loss": "training", "val_loss": "validation"},
    "log_loss": {"val_log_loss": "validation"},
}


def main() -> None:
    params = read_params()
    names = params.evaluate.variants
    remove_stale(params)
    test = read_test(params)
    n_train = len(read_table(runs.fold_table(params.split.folds[0], "train")))
    n_val = min(len(read_table(runs.fold_table(fold, "val"))) for fold in params.split.folds)
    epochs = {name: kept_epochs(name, params) for name in names if name in params.adapters}
    evaluation = {name: read_json(workspace.EVALUATION / name / "metrics.json") for name in names}
    comparison = compare(test, evaluation, epochs, n_train, n_val, params)
    comparison["humans"] = {}
    if "synthetic" not in params.data.name.lower():  # synthetic data have no annotators
        first, records = test[names[0]], read_records(workspace.RAW_RECORDS)
        comparison["humans"] = describe_humans(
            records, first.ids, first.truth, params.data.labels, params.compare.confidence
        )
    comparison = rounded(comparison)
    write_json(workspace.COMPARISON / "comparison.json", comparison)
    write_csv(workspace.METRICS / "pairs.csv", pair_table(comparison))
    write_curves(params)
    print(as_text(comparison))


def remove_stale(params: Params) -> None:
    """Delete what dropped runs and variants left in the folders that this stage reads."""
    answering = [*params.adapters, *params.evaluate.untrained]
    predictions, curves = runs.PREDICTIONS, runs.TRAINING_CURVES
    answers = [path for suffix in (".csv", ".json") for path in runs.run_paths(predictions, answering, params, suffix)]
    remove_stale_files(predictions, [*answers, *(predictions / name for name in get_args(Baseline))])
    remove_stale_files(workspace.EVALUATION, [workspace.EVALUATION / name for name in params.evaluate.variants])
    remove_stale_files(curves, runs.run_paths(curves, params.adapters, params))


def read_test(params: Params) -> dict[str, Replicates]:
    """Each variant's predictions on test. Raises UserError unless all variants answer the same questions."""
    variants = {name: read_replicates(name, "test", params) for name in params.evaluate.variants}
    first, *others = variants
    for name in others:
        if (variants[name].ids, variants[name].truth) != (variants[first].ids, variants[first].truth):
            raise UserError(f"{name} and {first} answer different questions of split 'test'; run `dvc repro`.")
    return variants


def kept_epochs(name: str, params: Params) -> list[dict]:
    """For each run of an adapter, the epoch whose weights were kept and the last epoch."""
    summaries = {run: training_summary(name, run) for run in runs.runs_of(name, params)}
    return [
        {"fold": fold, "seed": seed, "kept": summary["best"]["epoch"], "last": summary["epoch"]}
        for (fold, seed), summary in summaries.items()
    ]


def write_curves(params: Params) -> None:
    """Put the variants' curves together, one table per curve, with each variant's colour."""
    variants = params.evaluate.variants
    # All values are read as text, so that numbers keep the digits that they were written with.
    for curve in CURVES:
        write_curve(curve, [read_csv(workspace.EVALUATION / name / f"{curve}.csv", str) for name in variants])
    for curve, splits in TRAINING_CURVES.items():
        tables = []
        for name in [name for name in variants if name in params.adapters]:
            for fold, seed in runs.runs_of(name, params):
                epochs = read_csv(runs.epochs_table(name, (fold, seed)), str).rename(columns=splits)
                table = epochs.melt("epoch", list(splits.values()), "split", curve)
                tables.append(table.assign(fold=fold, seed=seed, variant=name))
        write_curve(curve, tables or [pd.DataFrame(columns=["variant"])])


def write_curve(curve: str, tables: list[pd.DataFrame]) -> None:
    table = pd.concat(tables, ignore_index=True)
    write_csv(workspace.COMPARISON / f"{curve}.csv", table.assign(color=table["variant"].map(variant_color)))


if __name__ == "__main__":
    run_stage(main)
