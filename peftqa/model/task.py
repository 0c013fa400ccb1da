"""A file beside an adapter that says how to ask it, so that it answers the same way elsewhere. Imports no torch."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import Field, ValidationError

from peftqa.config.errors import explain
from peftqa.config.params import Template
from peftqa.config.settings import Distinct, Dtype, Label, Settings
from peftqa.errors import UserError, one_line
from peftqa.model.prompts import token_ids

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedTokenizerBase

FILE, WEIGHTS = "task.json", "adapter_model.safetensors"
MAX_BYTES = 2**22  # of the file; training writes a few kilobytes
SHARES = np.linspace(0, 1, 21)  # the levels of the quantiles of confidence
PARTS = {"question": "question", "context": "abstract"}  # a question's parts, and their names in a sentence

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]


class BaseModelReference(Settings):
    """The frozen model: name, revision and dtype as in params.yaml, and the digest of its files."""

    name: str
    revision: Annotated[str, Field(pattern="^([0-9a-f]{40}|sha256:[0-9a-f]{64})$")] | None
    digest: Annotated[str, Field(pattern="^sha256:[0-9a-f]{64}$")]
    dtype: Dtype


class Extremes(Settings):
    """The extremes of one part of the training texts: question or abstract.

    fewest, most: tokens. tokens_per_word: the largest number, which is high for random letters. rare: the largest share
    of tokens that occur in only one training question.
    """

    fewest: Count
    most: Count
    tokens_per_word: Annotated[float, Field(ge=0)]
    rare: Share


class Training(Settings):
    """What the training questions were like, so that a question unlike them can be noticed.

    data: its name in params.yaml. tokens: a bit for each token id, in hexadecimal, set if training has the id.
    """

    data: str
    question: Extremes
    context: Extremes
    tokens: Annotated[str, Field(pattern="^([0-9a-f]{2})*$")]

    @property
    def name(self) -> str:
        """The data's name in printable characters."""
        name = one_line(self.data)
        return f"synthetic data ({name})" if "synthetic" in name.lower() else name

    def unlike(self, tokenizer: PreTrainedTokenizerBase, texts: Mapping[str, str]) -> str:
        """How a question differs from all training questions, in words; "" if it does not. texts: by part."""
        bits = np.unpackbits(np.frombuffer(bytes.fromhex(self.tokens), dtype=np.uint8))
        for part, name in PARTS.items():
            limits = getattr(self, part)
            ids = np.array(token_ids(tokenizer, [texts[part]])[0], dtype=int)
            per_word = len(ids) / max(1, len(texts[part].split()))
            rare = float(np.mean(~np.isin(ids, np.flatnonzero(bits)))) if len(ids) else 1.0
            if not limits.fewest <= len(ids) <= limits.most:
                return f"the {name} has {len(ids)} tokens, and in training it had {limits.fewest} to {limits.most}"
            if per_word > limits.tokens_per_word:
                known = f"{limits.tokens_per_word:.2f} at most"
                return f"the {name} has {per_word:.2f} tokens per word, and in training it had {known}"
            if rare > limits.rare:
                known = f"{limits.rare:.0%} at most"
                return f"{rare:.0%} of the {name}'s tokens are in no training question, and in training it was {known}"
        return ""


class Task(Settings):
    """How an adapter must be asked, and how sure it was.

    weights: the sha256 of the adapter's weights. trainable_params: how many parameters got a gradient in training.
    confidence: quantiles, at SHARES, of the highest label probability of its answers to the validation questions.
    """

    format: Literal[2] = 2
    weights: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    trainable_params: Count
    base_model: BaseModelReference
    labels: Annotated[list[Label], Field(min_length=2), Distinct]
    template: Template
    confidence: list[Share] = Field(min_length=len(SHARES), max_length=len(SHARES))
    training: Training

    def threshold(self, coverage: float) -> float:
        """The confidence that the share `coverage` of the validation answers reached; 0 if coverage is 1."""
        return float(np.interp(1 - coverage, SHARES, self.confidence)) if coverage < 1 else 0.0


def confidence_quantiles(probabilities: np.ndarray) -> list[float]:
    """`Task.confidence` of validation answers with these label probabilities, (n, labels)."""
    return np.quantile(probabilities.max(axis=1), SHARES).tolist()


def describe_training(tokenizer: PreTrainedTokenizerBase, table: pd.DataFrame, data: str) -> Training:
    """`Task.training` of the training questions in `table`, which has the columns question and context."""
    ids = {part: token_ids(tokenizer, table[part]) for part in PARTS}
    questions = Counter(number for row in zip(*ids.values(), strict=True) for number in set().union(*row))
    del questions[tokenizer.unk_token_id]  # so an unknown token always counts as rare
    bits = np.zeros(max(questions, default=0) + 1, dtype=bool)
    bits[list(questions)] = True
    extremes = {part: _extremes(table[part], ids[part], questions) for part in PARTS}
    return Training(data=data, **extremes, tokens=np.packbits(bits).tobytes().hex())


def _extremes(texts: Iterable[str], ids: Sequence[Sequence[int]], questions: Counter) -> Extremes:
    """The extremes of one part. questions: in how many training questions each token id occurs."""
    lengths = [len(row) for row in ids]
    per_word = max(length / max(1, len(text.split())) for length, text in zip(lengths, texts, strict=True))
    rare = max(np.mean([questions[number] < 2 for number in row]) if row else 1.0 for row in ids)
    return Extremes(fewest=min(lengths), most=max(lengths), tokens_per_word=per_word, rare=float(rare))


def weights_digest(folder: Path) -> str:
    """`Task.weights` of the adapter in `folder`."""
    with (folder / WEIGHTS).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_task(folder: Path, task: Task) -> None:
    """Write the file into an adapter's folder; equal tasks make equal bytes."""
    (folder / FILE).write_text(task.model_dump_json(indent=2) + "\n", encoding="utf-8")


def read_task(folder: Path) -> Task:
    """The task of the adapter in `folder`. It checks that the weights are those that training wrote.

    Raises UserError if a file is missing, damaged or of an earlier version.
    """
    path = folder / FILE
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES)
        task, found = Task.model_validate_json(content), weights_digest(folder)
    except FileNotFoundError as error:
        raise UserError(
            f"{error.filename} is missing; name the folder of an adapter that this project trained, such as "
            "models/adapters/prefix/fold-0/seed-42."
        ) from None
    except ValidationError as error:
        reason = explain(error)[0]
        raise UserError(f"{path} is damaged or of an earlier version ({reason}); train the adapter anew.") from None
    if found != task.weights:
        again = "fetch the adapter again, or train it anew"
        raise UserError(f"{folder / WEIGHTS} is damaged: its sha256 is not the one in {FILE}; {again}.")
    return task
