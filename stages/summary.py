"""The result of a finished training, from its table of epochs."""

from pathlib import Path

from peftqa.data.files import read_csv, reading
from stages.runs import epochs_table


def training_summary(name: str, run: tuple[int, int], root: Path = Path()) -> dict:
    """The last `epoch` of a finished training, and under `best` the figures of the epoch whose weights are kept.

    A search compares settings by these, and `publish` chooses which run of an adapter to release. Raises UserError if
    the table of epochs is missing or damaged.
    """
    path = root / epochs_table(name, run)
    with reading(path):
        epochs = read_csv(path, str).astype(float).to_dict("records")
        best = min(epochs, key=lambda epoch: epoch["val_log_loss"])
        return {"epoch": int(epochs[-1]["epoch"]), "best": best | {"epoch": int(best["epoch"])}}
