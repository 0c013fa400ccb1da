"""The experiments in 120 columns, lowest validation log loss first: python -m experiments.table

One row per adapter whose numbers differ from those of the commit that the experiment began at, with the parameters that
the experiment changed. `dvc exp show` has every number and parameter, a thousand characters wide.
"""

import argparse
import json
import math
import subprocess
from collections.abc import Iterator

from experiments.runs import DVC, environment
from peftqa.errors import UserError
from stages import run_stage, workspace

WIDTH = 120
COLUMNS = ("val_log_loss", "accuracy", "accuracy_sd")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-A", "--all-commits", action="store_true", help="experiments of older commits too")
    options = parser.parse_args()
    command = [*DVC, "exp", "show", "--json", *(["--all-commits"] if options.all_commits else [])]
    result = subprocess.run(command, env=environment(), capture_output=True, text=True)
    if result.returncode:
        raise UserError(f"dvc exp show failed: {result.stderr.strip()}")
    found = list(rows(json.loads(result.stdout)))
    print(as_text(found) if found else "No experiment of this commit has numbers of its own.")


def rows(shown: list[dict]) -> Iterator[dict]:
    """What `dvc exp show --json` prints, as rows: experiment, adapter, those of COLUMNS that it has, changes.

    A commit has one row per adapter, without changes.
    """
    for commit in shown:
        if commit["rev"] == "workspace":
            continue
        base = commit["data"] or {}
        for adapter, numbers in metrics(base).items():
            yield {"experiment": commit["name"] or commit["rev"][:7], "adapter": adapter, **numbers, "changes": {}}
        for experiment in commit["experiments"] or ():
            data = experiment["revs"][-1]["data"] or {}
            before, after = parameters(base), parameters(data)
            changes = {key: value for key, value in after.items() if before.get(key, "") != value}
            for adapter, numbers in metrics(data).items():
                if numbers != metrics(base).get(adapter):
                    row = {"experiment": experiment["name"], "adapter": adapter, **numbers}
                    yield row | {"changes": relevant(changes, adapter)}


def metrics(data: dict) -> dict[str, dict[str, float]]:
    """By adapter, the numbers of metrics/ADAPTER.json that are in COLUMNS."""
    adapters = {key.split(".")[1] for key in parameters(data) if key.startswith("adapters.")}
    files = {path: file.get("data") for path, file in (data.get("metrics") or {}).items()}
    numbers = {adapter: files.get(f"{workspace.METRICS}/{adapter}.json") for adapter in sorted(adapters)}
    return {name: {key: row[key] for key in COLUMNS if key in row} for name, row in numbers.items() if row}


def parameters(data: dict) -> dict[str, object]:
    """params.yaml as {"train.epochs": 3}."""

    def flat(value: object, path: str) -> dict[str, object]:
        if not isinstance(value, dict):
            return {path[1:]: value}
        return {full: leaf for key, part in value.items() for full, leaf in flat(part, f"{path}.{key}").items()}

    return flat((data.get("params") or {}).get(str(workspace.PARAMS), {}).get("data") or {}, "")


def relevant(changes: dict[str, object], adapter: str) -> dict[str, object]:
    """The changes without those of other adapters. The adapter's own come first, by their short names."""
    own = f"adapters.{adapter}."
    short = {key.removeprefix(own): value for key, value in changes.items() if key.startswith(own)}
    return short | {key: value for key, value in changes.items() if not key.startswith("adapters.")}


def as_text(found: list[dict]) -> str:
    """The rows as a table, lowest validation log loss first; a line that is too long is cut."""
    lines = [("experiment", "adapter", "val log loss", "accuracy", "changed")]
    for row in sorted(found, key=lambda row: row.get("val_log_loss", math.inf)):
        loss = f"{row['val_log_loss']:.4f}" if "val_log_loss" in row else ""
        accuracy = f"{100 * row['accuracy']:.1f}%" if "accuracy" in row else ""
        spread = f" ± {100 * row['accuracy_sd']:.1f}" if "accuracy_sd" in row else ""
        changes = " ".join(f"{key}={short(value)}" for key, value in row["changes"].items())
        lines.append((row["experiment"], row["adapter"], loss, accuracy + spread, changes))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines)
    return "\n".join(line if len(line) <= WIDTH else f"{line[: WIDTH - 1]}…" for line in text)


def short(value: object) -> str:
    """Three digits of a number that a search has drawn."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    run_stage(main)
