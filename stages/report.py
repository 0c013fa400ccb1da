"""Write the report, report/index.html and report/report.md, of the variants under `evaluate.variants`.

Usage: python -m stages.report
"""

import argparse
import json
import statistics
from pathlib import Path

import pandas as pd
from pandas.errors import EmptyDataError

from peftqa.errors import UserError
from peftqa.params import read_params
from peftqa.predictions import on_split, read_predictions
from peftqa.records import read_table
from peftqa.report.render import Results, render
from stages import workspace

CURVES = ("loss", "macro_f1", "roc", "precision_recall", "reliability", "confusion", "risk_coverage")
SPLITS = ("train", "val", "test")


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    results = read_results()
    check_agreement(results)
    html, markdown = render(results)
    workspace.REPORT.mkdir(exist_ok=True)
    (workspace.REPORT / "report.md").write_text(markdown, encoding="utf-8")
    page = workspace.REPORT / "index.html"
    page.write_text(html, encoding="utf-8")
    print(page)


def read_results() -> Results:
    """Of the variants listed, and of no others. Raises UserError where a file is missing."""
    params = read_params(workspace.PARAMS)
    names = list(params.evaluate.variants)
    trained = [name for name in names if name in params.adapters]
    labels = params.data.labels
    per_seed = {name: read_json(workspace.METRICS / "per_seed" / f"{name}.json") for name in names}
    return Results(
        params=params,
        dataset=read_json(workspace.METRICS / "dataset.json"),
        splits={split: read_table(workspace.SPLIT_FOLDER / f"{split}.csv") for split in SPLITS},
        baselines=read_json(workspace.METRICS / "baselines.json"),
        comparison=read_json(workspace.METRICS / "comparison.json"),
        predictions={
            name: on_split(read_predictions(workspace.PREDICTIONS / f"{name}.csv", labels), "test") for name in names
        },
        valid_answer_rate={
            name: statistics.mean(seed["valid_answer_rate"] for seed in seeds.values())
            for name, seeds in per_seed.items()
        },
        curves={curve: read_curve(workspace.PLOTS / "comparison" / f"{curve}.csv") for curve in CURVES},
        training_cost={name: read_json(workspace.RUNTIME / f"train-{name}.json") for name in trained},
        evaluation_cost={name: read_json(workspace.RUNTIME / f"evaluate-{name}.json") for name in names},
    )


def check_agreement(results: Results) -> None:
    """Raises UserError where the files read are not of one run."""
    if list(results.comparison["variants"]) != list(results.predictions):
        raise UserError(
            f"{workspace.METRICS / 'comparison.json'} compares {', '.join(results.comparison['variants'])}, but "
            f"evaluate.variants lists {', '.join(results.predictions)}; run `dvc repro`."
        )
    for name, predictions in results.predictions.items():
        if predictions.ids != list(results.splits["test"]["id"]):
            raise UserError(
                f"{workspace.PREDICTIONS / name}.csv has other questions than {workspace.SPLIT_FOLDER / 'test.csv'}; "
                "run `dvc repro`."
            )


def read_json(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing; run `dvc repro`.") from None


def read_curve(path: Path) -> pd.DataFrame:
    """A table of plots/comparison, empty where no variant listed has such a curve."""
    try:
        return pd.read_csv(path, keep_default_na=False)
    except FileNotFoundError:
        raise UserError(f"{path} is missing; run `dvc repro compare`.") from None
    except EmptyDataError:
        return pd.DataFrame()


if __name__ == "__main__":
    workspace.run(main)
