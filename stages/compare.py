"""Compare the variants under `evaluate.variants` on the test questions, every pair of them.

    python -m stages.compare

Writes metrics/comparison.json (its structure: peftqa/comparison.py) and, for `dvc plots`, the curves of all variants
together, plots/comparison/*.csv. Reads only the files of the variants that are listed.
"""

import argparse
import json
from pathlib import Path

import pandas as pd

from peftqa.comparison import compare
from peftqa.errors import UserError
from peftqa.palette import variant_color
from peftqa.params import read_params
from peftqa.predictions import SplitPredictions, on_split, read_predictions
from stages import workspace

CURVES = ("roc", "precision_recall", "reliability", "confusion", "risk_coverage")
PRINTED = ("accuracy", "macro_f1", "mcc", "log_loss")


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    params = read_params(workspace.PARAMS)
    names = list(params.evaluate.variants)
    test, val = (read_split(names, split, params.data.labels) for split in ("test", "val"))
    comparison = rounded(compare(test, val, params))
    workspace.write_json(workspace.METRICS / "comparison.json", comparison)
    write_curves(names, [name for name in names if name in params.adapters])
    reference_rows = workspace.METRICS / "baselines.json"
    baselines = json.loads(reference_rows.read_text(encoding="utf-8")) if reference_rows.exists() else {}
    print(as_text(comparison, baselines))


def read_split(names: list[str], split: str, labels: list[str]) -> dict[str, SplitPredictions]:
    """Each variant's predictions on one split. Raises UserError unless all are of the same questions."""
    predictions = {}
    for name in names:
        path = workspace.PREDICTIONS / f"{name}.csv"
        try:
            predictions[name] = on_split(read_predictions(path, labels), split)
        except ValueError as error:
            raise UserError(f"{path}: {error}; run `dvc repro evaluate@{name}`.") from None
        first = predictions[names[0]]
        for differ, what in (
            (predictions[name].ids != first.ids, "questions"),
            (predictions[name].truth != first.truth, "labels of their questions"),
        ):
            if differ:
                raise UserError(
                    f"{path} and {workspace.PREDICTIONS / names[0]}.csv differ in the {what} of split {split!r}; "
                    "run `dvc repro`."
                )
    return predictions


def write_curves(variants: list[str], adapters: list[str]) -> None:
    """Put the variants' curves together, one table a curve, with columns `variant` and `color`."""
    for curve in CURVES:
        parts = {name: read_text_table(workspace.PLOTS / "evaluation" / name / f"{curve}.csv") for name in variants}
        write_table(curve, parts)
    folders = {name: sorted((workspace.PLOTS / "training" / name).glob("seed-*"), key=seed_of) for name in adapters}
    for curve, series in {
        "loss": {"training": "train/loss", "validation": "val/loss"},
        "macro_f1": {"validation": "val/macro_f1"},
    }.items():
        write_table(curve, {name: training_curve(folders[name], curve, series) for name in adapters})


def training_curve(folders: list[Path], value: str, series: dict[str, str]) -> pd.DataFrame:
    """What DVCLive wrote, one folder a seed, as a table with columns seed, split, epoch and the value."""
    parts = []
    for folder in folders:
        epochs = read_text_table(folder / "plots/metrics/epoch.tsv")["epoch"]
        for split, path in series.items():
            values = read_text_table(folder / f"plots/metrics/{path}.tsv")[value]
            parts.append(pd.DataFrame({"seed": seed_of(folder), "split": split, "epoch": epochs, value: values}))
    return pd.concat(parts, ignore_index=True)


def seed_of(folder: Path) -> int:
    return int(folder.name.removeprefix("seed-"))


def read_text_table(path: Path) -> pd.DataFrame:
    """A table of text: numbers keep the digits they were written with."""
    try:
        return pd.read_csv(path, dtype=str, keep_default_na=False, sep="\t" if path.suffix == ".tsv" else ",")
    except FileNotFoundError:
        raise UserError(f"{path} is missing; run `dvc repro`.") from None


def write_table(curve: str, parts: dict[str, pd.DataFrame]) -> None:
    path = workspace.PLOTS / "comparison" / f"{curve}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [part.assign(variant=name, color=variant_color(name)) for name, part in parts.items()]
    table = pd.concat(rows, ignore_index=True) if rows else pd.DataFrame()
    table.to_csv(path, index=False)


def rounded(value: object) -> object:
    """Floats to six decimals, wherever they are; p-values, which may be smaller, stay."""
    if isinstance(value, dict):
        return {key: item if key in ("p", "p_holm") else rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item) for item in value]
    return round(value, 6) if isinstance(value, float) else value


def as_text(comparison: dict, baselines: dict[str, dict]) -> str:
    """The comparison for a terminal: the variants under the reference rows, then the pairs."""
    rows = baselines | {name: variant["metrics"] for name, variant in comparison["variants"].items()}
    table = pd.DataFrame.from_dict(rows, orient="index").reindex(columns=list(PRINTED))
    text = [f"{comparison['n']} test questions", table.to_string(float_format="{:.3f}".format, na_rep="-")]
    percent = f"{100 * comparison['confidence']:g}%"
    for pair in comparison["pairs"]:
        text.append(f"\n{pair['variant']} against {pair['reference']}: {pair['verdict']}")
        for key in PRINTED:
            low, high = pair["intervals"][key]
            text.append(f"  {key:10}{pair['differences'][key]:+.3f}  {percent} interval {low:+.3f} to {high:+.3f}")
    if comparison["note"]:
        text.append(f"\n{comparison['note']}")
    return "\n".join(text)


if __name__ == "__main__":
    workspace.run(main)
