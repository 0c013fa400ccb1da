"""Write the report, report/index.html and report/report.md, of `evaluate.variants`: python -m stages.report"""

import subprocess

import pandas as pd
from pandas.errors import EmptyDataError

from peftqa.errors import UserError
from peftqa.params import Params, read_params
from peftqa.predictions import Replicates, read_predictions, replicates
from peftqa.records import read_table
from peftqa.report.render import Results, render
from stages import workspace

CURVES = ("loss", "log_loss", "roc", "precision_recall", "reliability", "confusion", "risk_coverage")
SPLITS = ("train", "val", "test")


def main() -> None:
    params = read_params(workspace.PARAMS)
    remove_stale(params)
    results = read_results(params)
    check_agreement(results)
    html, markdown = render(results)
    page = workspace.REPORT / "index.html"
    for path, text in ((workspace.REPORT / "report.md", markdown), (page, html)):
        with workspace.written(path) as partial:
            partial.write_text(text, encoding="utf-8")
    print(page)


def remove_stale(params: Params) -> None:
    """Of runtime/, on which this stage alone depends."""
    stages = {"train": params.adapters, "predict": [*params.adapters, *params.evaluate.untrained]}
    written = [
        workspace.of_run(workspace.RUNTIME / stage, name, run, ".json")
        for stage, names in stages.items()
        for name in names
        for run in params.runs(name)
    ]
    workspace.remove_stale(workspace.RUNTIME, written)


def read_results(params: Params) -> Results:
    """Of the variants listed, and of no others. Raises UserError where a file is missing."""
    names = params.evaluate.variants
    trained = [name for name in names if name in params.adapters]
    answering = [*trained, *(name for name in names if name in params.evaluate.untrained)]
    evaluation = {name: workspace.read_json(workspace.EVALUATION / name / "metrics.json")["mean"] for name in names}
    return Results(
        params=params,
        counts=workspace.read_json(workspace.CLEAN_COUNTS),
        splits={
            fold: {split: read_table(workspace.fold_table(fold, split)) for split in SPLITS}
            for fold in params.split.folds
        },
        comparison=workspace.read_json(workspace.COMPARISON / "comparison.json"),
        evaluation=evaluation,
        predictions={name: read_test(name, params) for name in names},
        curves={curve: read_curve(curve) for curve in CURVES},
        training_cost={name: read_runtime("train", name, params) for name in trained},
        answering_cost={name: read_runtime("predict", name, params) for name in answering},
        commit=commit(),
    )


def read_test(name: str, params: Params) -> Replicates:
    paths = [workspace.of_run(workspace.PREDICTIONS, name, run, ".csv") for run in params.runs(name)]
    table = read_predictions(paths, params.data.labels)
    return replicates(table, "test", same_questions=params.split.protocol == "official")


def read_runtime(stage: str, name: str, params: Params) -> list[dict]:
    """What each run of a variant took in a stage, with its fold and seed."""
    return [
        {"fold": run[0], "seed": run[1]}
        | workspace.read_json(workspace.of_run(workspace.RUNTIME / stage, name, run, ".json"))
        for run in params.runs(name)
    ]


def read_curve(name: str) -> pd.DataFrame:
    """A table of comparison/, empty where no variant listed has such a curve."""
    path = workspace.COMPARISON / f"{name}.csv"
    try:
        return pd.read_csv(path, keep_default_na=False)
    except FileNotFoundError:
        raise UserError(f"{path} is missing; run `dvc repro compare`.") from None
    except EmptyDataError:
        return pd.DataFrame()


def commit() -> str | None:
    """The commit of the code, None where git is not there or has none."""
    try:
        result = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True)
    except FileNotFoundError:
        return None
    return result.stdout.strip() if result.returncode == 0 else None


def check_agreement(results: Results) -> None:
    """Raises UserError where the files read are not of one run."""
    if list(results.comparison["variants"]) != list(results.predictions):
        raise UserError(
            f"{workspace.COMPARISON / 'comparison.json'} compares {', '.join(results.comparison['variants'])}, but "
            f"evaluate.variants lists {', '.join(results.predictions)}; run `dvc repro`."
        )
    asked = {question for tables in results.splits.values() for question in tables["test"]["id"]}
    for name, predictions in results.predictions.items():
        if set(predictions.ids) != asked:
            raise UserError(
                f"{workspace.PREDICTIONS / name} has other questions than {workspace.SPLIT}; run `dvc repro`."
            )


if __name__ == "__main__":
    workspace.run(main)
