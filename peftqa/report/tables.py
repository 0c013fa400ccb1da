"""The report's tables, row by row. A row maps headings to cells. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from peftqa.report.wording import DASH, HUMANS, METRICS, MINUS, estimate, level, outcome, points, signed, value
from peftqa.statistics.comparison import p_text

# For each column of the table of cost: the stage whose file in runtime/ has the number, and its name there.
COST = {
    "training, seconds": ("train", "seconds"),
    "training, MiB": ("train", "peak_memory_mb"),
    "one question, milliseconds": ("predict", "milliseconds_per_question.median"),
    "a slow question, milliseconds": ("predict", "milliseconds_per_question.percentile_95"),
    "answering, MiB": ("predict", "peak_memory_mb"),
}


def result_rows(comparison: Mapping) -> list[dict]:
    """Every metric of every variant with its interval, and the accuracy of the two humans."""
    rows = []
    for name, variant in comparison["variants"].items():
        shown, intervals = variant["metrics"], variant["intervals"]
        cells = {METRICS[key]: estimate(shown.get(key), intervals.get(key), key) for key in METRICS}
        rows.append({"variant": name} | cells)
    for name, row in comparison["humans"].items():
        cells = {"variant": HUMANS[name][0], "accuracy": estimate(row["accuracy"], row["interval"], "accuracy")}
        rows.append(dict.fromkeys(rows[0], DASH) | cells)
    return rows


def pair_rows(comparison: Mapping) -> list[dict]:
    """The test of every pair. Columns that do not apply to any pair are left out."""
    corrected = "corrected " if len(comparison["pairs"]) > 1 else ""
    rows = []
    for pair in comparison["pairs"]:
        test, sceptic, exact = pair["test"], pair["corrected_t"], pair["test"]["name"] == "mcnemar"
        errors = (signed(100 * error, 1) if error else DASH for error in test["standard_errors"].values())
        between = estimate(test["difference"], test["interval_holm"], "accuracy", plus=True)
        row = {
            "pair": f"{pair['variant']} {MINUS} {pair['reference']}",
            f"difference ({corrected}{level(comparison)} interval)": between,
            f"{corrected}p": p_text(test["p_holm"], comparison["alpha"]),
            "sceptic's p": p_text(sceptic["p"], comparison["alpha"]) if sceptic else DASH,
            "only one right": f"{pair['only_variant_right']} : {pair['only_reference_right']}" if exact else DASH,
            "standard errors": DASH if exact else ", ".join(errors),
            "decided by": test["name"].removeprefix("over_"),
            "verdict": outcome(pair, comparison["margin"]),
        }
        rows.append(row)
    return [{key: row[key] for key in row if any(other[key] != DASH for other in rows)} for row in rows]


def detectable_rows(comparison: Mapping) -> list[dict]:
    """The smallest differences that the protocol can show, per spread of runs (rows) and discordance (columns)."""
    rows = []
    for planned in comparison["detectable"]:
        varies = "one training each" if planned["run_sd"] is None else points(planned["run_sd"])
        shown = {
            f"only one is right on {100 * float(share):g}%": "none" if smallest is None else points(smallest)
            for share, smallest in planned["differences"].items()
        }
        rows.append({"accuracy varies by": varies} | shown)
    return rows


def calibration_rows(comparison: Mapping) -> list[dict]:
    """Calibration error, and what is gained by leaving doubtful questions to a person."""
    rows = []
    for name, variant in comparison["variants"].items():
        metrics, surest = variant["metrics"], variant["abstention"]
        cells = {"calibration error": value(metrics["ece"], "ece"), "accuracy": value(metrics["accuracy"], "accuracy")}
        cells[f"accuracy on the surest {100 * surest['coverage']:g}%"] = value(surest["accuracy"], "accuracy")
        rows.append({"variant": name} | cells)
    return rows


def confusion_rows(confusion: pd.DataFrame) -> list[dict]:
    """How many questions of a label got which answer."""
    return [
        {"variant": name} | {f"{cell.actual} → {cell.predicted}": cell.count for cell in cells.itertuples()}
        for name, cells in confusion.groupby("variant", sort=False)
    ]


def cost_rows(runtime: Mapping[str, Mapping[str, list[dict]]]) -> list[dict]:
    """What a variant's runs took, the median of each number with two digits, because more would be noise.

    runtime: by variant and stage, a run's file each.
    """
    rows = []
    for name, stages in runtime.items():
        medians = {stage: pd.json_normalize(runs).median() for stage, runs in stages.items()}
        numbers = {heading: medians[stage][key] for heading, (stage, key) in COST.items() if stage in medians}
        cells = {heading: f"{float(f'{number:.2g}'):,g}" for heading, number in numbers.items()}
        rows.append({"variant": name} | dict.fromkeys(COST, DASH) | cells)
    return rows
