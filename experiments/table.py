"""Experiments, 120 characters wide, lowest validation log loss first: python -m experiments.table

One row per adapter whose numbers differ from those of the commit that the experiment began at, with the parameters that
the experiment changed. `dvc exp show` has every number and parameter, a thousand characters wide.
"""

import argparse
import json
from collections.abc import Iterator

import pandas as pd

from experiments.runs import DVC, run_python
from stages import run_stage, workspace

WIDTH = 120
COLUMNS = ("val_log_loss", "accuracy", "accuracy_sd")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-A", "--all-commits", action="store_true", help="experiments of older commits too")
    older = ["--all-commits"] if parser.parse_args().all_commits else []
    found = list(rows(json.loads(run_python(*DVC, "exp", "show", "--json", *older).stdout)))
    print(as_text(found) if found else "No experiment of this commit has numbers of its own.")


def rows(shown: list[dict]) -> Iterator[dict]:
    """What `dvc exp show --json` prints, as rows: experiment, adapter, those of COLUMNS that it has, changed.

    The variants that `make compare` records are left out: in them only `selected` differs.
    """
    for commit in shown:
        base = {} if commit["rev"] == "workspace" else commit["data"] or {}
        before = parameters(base)
        for adapter, numbers in metrics(base).items():
            yield {"experiment": commit["name"] or commit["rev"][:7], "adapter": adapter, **numbers, "changed": ""}
        for experiment in commit["experiments"] or ():
            data = experiment["revs"][-1]["data"] or {}
            changes = {key: value for key, value in parameters(data).items() if before.get(key, "") != value}
            for adapter, numbers in metrics(data).items():
                if numbers != metrics(base).get(adapter) and changes.keys() != {"selected"}:
                    row = {"experiment": experiment["name"], "adapter": adapter, **numbers}
                    yield row | {"changed": relevant(changes, adapter)}


def metrics(data: dict) -> dict[str, dict[str, float]]:
    """By adapter, the numbers of metrics/ADAPTER.json that are in COLUMNS."""
    adapters = sorted({key.split(".")[1] for key in parameters(data) if key.startswith("adapters.")})
    files = {path: file.get("data") or {} for path, file in (data.get("metrics") or {}).items()}
    found = {adapter: files.get(f"{workspace.METRICS}/{adapter}.json", {}) for adapter in adapters}
    return {name: {key: row[key] for key in COLUMNS if key in row} for name, row in found.items() if row}


def parameters(data: dict) -> dict[str, object]:
    """params.yaml as {"train.epochs": 3}."""
    params = (data.get("params") or {}).get(str(workspace.PARAMS), {}).get("data") or {}
    return pd.json_normalize(params).to_dict("records")[0]


def relevant(changes: dict[str, object], adapter: str) -> str:
    """The changes without those of other adapters. The adapter's own come first, by their short names."""
    own = f"adapters.{adapter}."
    named = {key.removeprefix(own): value for key, value in changes.items() if key.startswith(own)}
    named |= {key: value for key, value in changes.items() if not key.startswith("adapters.")}
    return " ".join(f"{key}={short(value)}" for key, value in named.items())


def as_text(found: list[dict]) -> str:
    """The rows as a table, lowest validation log loss first; a line that is too long is cut."""
    table = pd.DataFrame(found, columns=["experiment", "adapter", *COLUMNS, "changed"])
    table = table.sort_values("val_log_loss", kind="stable")
    for name in ("experiment", "adapter", "changed"):
        table[name] = table[name].str.ljust(table[name].str.len().max())
    text = table.to_string(index=False, justify="left", na_rep="", float_format="{:.4f}".format)
    lines = [line.rstrip() for line in text.splitlines()]
    return "\n".join(line if len(line) <= WIDTH else f"{line[: WIDTH - 1]}…" for line in lines)


def short(value: object) -> str:
    """Three digits of a number that a search has drawn."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    run_stage(main)
