"""The result of a finished training, from its table of epochs."""

import csv
from pathlib import Path

from peftqa.errors import UserError
from stages.runs import epochs_table


def training_summary(name: str, run: tuple[int, int], root: Path = Path()) -> dict:
    """The last `epoch` of a finished training, and under `best` the figures of the epoch whose weights are kept.

    A search compares settings by these, and `publish` chooses which run of an adapter to release. Raises UserError if
    the table of epochs is missing or damaged.
    """
    path = root / epochs_table(name, run)
    try:
        with path.open(encoding="utf-8", newline="") as file:
            epochs = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
        best = min(epochs, key=lambda epoch: epoch["val_log_loss"])
        return {"epoch": int(epochs[-1]["epoch"]), "best": best | {"epoch": int(best["epoch"])}}
    except FileNotFoundError:
        raise UserError(f"{path} is missing; run `dvc repro`.") from None
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error}); delete it and run `dvc repro` to make it again.") from None
