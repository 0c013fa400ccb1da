"""The experiments in 120 columns, lowest validation log loss first: python -m experiments.table

A row for each adapter whose numbers differ from those of the commit that the experiment began at, with the parameters
that the experiment changed. `dvc exp show` has every number and parameter, a thousand characters wide.
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
    parser.add_argument("-A", "--all-commits", action="store_true", help="those of older commits too")
    options = parser.parse_args()
    command = [*DVC, "exp", "show", "--json", *(["--all-commits"] if options.all_commits else [])]
    result = subprocess.run(command, env=environment(), capture_output=True, text=True)
    if result.returncode:
        raise UserError(f"dvc exp show failed: {result.stderr.strip()}")
    found = list(rows(json.loads(result.stdout)))
    print(as_text(found) if found else "No experiment of this commit has numbers of its own.")


def rows(shown: list[dict]) -> Iterator[dict]:
    """What `dvc exp show --json` has, as rows: experiment, adapter, the columns where they exist, changes.

    Of commits all adapters, with no changes.
    """
    for commit in shown:
        if commit["rev"] == "workspace":
            continue
        base = commit["data"] or {}
        name = commit["name"] or commit["rev"][:7]
        for adapter, numbers in metrics(base).items():
            yield {"experiment": name, "adapter": adapter, **numbers, "changes": {}}
        for experiment in commit["experiments"] or ():
            data = experiment["revs"][-1]["data"] or {}
            before, after = parameters(base), parameters(data)
            changes = {key: value for key, value in after.items() if before.get(key, "") != value}
            for adapter, numbers in metrics(data).items():
                if numbers != metrics(base).get(adapter):
                    row = {"experiment": experiment["name"], "adapter": adapter, **numbers}
                    yield row | {"changes": relevant(changes, adapter)}


def metrics(data: dict) -> dict[str, dict[str, float]]:
    """By adapter, the columns' numbers in metrics/ADAPTER.json."""
    adapters = {key.split(".")[1] for key in parameters(data) if key.startswith("adapters.")}
    files = {path: file.get("data") for path, file in (data.get("metrics") or {}).items()}
    numbers = {adapter: files.get(f"{workspace.METRICS}/{adapter}.json") for adapter in sorted(adapters)}
    return {name: {key: row[key] for key in COLUMNS if key in row} for name, row in numbers.items() if row}


def parameters(data: dict) -> dict[str, object]:
    """params.yaml as {"train.epochs": 3}."""

    def flat(group: dict, path: str) -> Iterator[tuple[str, object]]:
        for key, value in group.items():
            if isinstance(value, dict):
                yield from flat(value, f"{path}{key}.")
            else:
                yield f"{path}{key}", value

    return dict(flat((data.get("params") or {}).get(str(workspace.PARAMS), {}).get("data") or {}, ""))


def relevant(changes: dict[str, object], adapter: str) -> dict[str, object]:
    """Without other adapters' settings, and the adapter's own by their short names, first."""
    own, others = f"adapters.{adapter}.", {key for key in changes if key.startswith("adapters.")}
    short = {key.removeprefix(own): value for key, value in changes.items() if key.startswith(own)}
    return short | {key: value for key, value in changes.items() if key not in others}


def as_text(found: list[dict]) -> str:
    """The rows as a table, lowest validation log loss first; changes that do not fit are counted."""
    found = sorted(found, key=lambda row: row.get("val_log_loss", math.inf))
    heads = ("experiment", "adapter", "val log loss", "accuracy", "changed")
    cells = [(row["experiment"], row["adapter"], number(row.get("val_log_loss")), accuracy(row)) for row in found]
    widths = [max(map(len, column)) for column in zip(heads, *((*row, "") for row in cells), strict=True)][:-1]
    room = WIDTH - sum(widths) - 2 * len(widths)
    lines = [(*heads,)] + [(*row, fit(about["changes"], room)) for row, about in zip(cells, found, strict=True)]
    widths.append(0)
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def fit(changes: dict[str, object], room: int) -> str:
    """As many `key=value` as fit into `room` characters, and how many more there are."""
    parts = [f"{key}={short(value)}" for key, value in changes.items()]
    kept: list[str] = []
    for part in parts:
        if len(" ".join([*kept, part, f"(+{len(parts)})"])) <= room:
            kept.append(part)
    left = len(parts) - len(kept)
    return " ".join([*kept, *([f"(+{left})"] if left else [])])


def short(value: object) -> str:
    """Three digits of a number that a search has drawn."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def accuracy(row: dict) -> str:
    spread = f" ± {100 * row['accuracy_sd']:.1f}" if "accuracy_sd" in row else ""
    return f"{100 * row['accuracy']:.1f}%{spread}" if "accuracy" in row else ""


if __name__ == "__main__":
    run_stage(main)
