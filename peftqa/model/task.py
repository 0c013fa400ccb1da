"""What an adapter was trained for, in a file beside it, so that it answers elsewhere as here. Imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, ValidationError

from peftqa.config.params import Template
from peftqa.config.settings import Dtype, Label, Settings
from peftqa.errors import UserError

FILE = "task.json"
SHARES = np.linspace(0, 1, 21)  # quantile levels at which the file holds the confidence on validation


class BaseModelReference(Settings):
    """The frozen model: name, revision and dtype as in params.yaml, and the digest of its files."""

    name: str
    revision: str | None
    digest: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
    dtype: Dtype


class Task(Settings):
    """How an adapter must be asked, and how sure it was.

    confidence: quantiles, at SHARES, of the highest label probability of its answers to the validation questions.
    """

    format: Literal[1] = 1
    base_model: BaseModelReference
    labels: list[Label] = Field(min_length=2)
    template: Template
    confidence: list[Annotated[float, Field(ge=0, le=1)]] = Field(min_length=len(SHARES), max_length=len(SHARES))

    def threshold(self, coverage: float) -> float:
        """The confidence that the share `coverage` of validation answers had or exceeded; 0 for all of them."""
        return float(np.interp(1 - coverage, SHARES, self.confidence)) if coverage < 1 else 0.0


def confidence_quantiles(probabilities: np.ndarray) -> list[float]:
    """`Task.confidence` of validation answers with these label probabilities, (n, labels)."""
    return np.quantile(probabilities.max(axis=1), SHARES).tolist()


def write_task(folder: Path, task: Task) -> None:
    """Write the file into an adapter's folder; equal tasks make equal bytes."""
    (folder / FILE).write_text(task.model_dump_json(indent=2) + "\n", encoding="utf-8")


def read_task(folder: Path) -> Task:
    """The task of the adapter in `folder`. Raises UserError where its file is missing or no such file."""
    path = folder / FILE
    try:
        return Task.model_validate_json(path.read_bytes())
    except OSError:
        raise UserError(
            f"{folder} has no {FILE}, which says how its adapter must be asked; name the folder of an adapter that "
            "this project trained, such as models/adapters/prefix/fold-0/seed-42."
        ) from None
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise UserError(f"{path} is damaged or of another version: {where}: {problem['msg']}.") from None
