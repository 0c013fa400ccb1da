"""Ask a trained adapter a question: where its files are, and the answer. Imports torch once a model is loaded."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from peftqa.config.params import ModelSettings
from peftqa.errors import UserError
from peftqa.evaluation.predictions import predict
from peftqa.fetch.digest import MODEL_FILES, folder_digest, is_commit
from peftqa.fetch.hub import snapshot
from peftqa.model.adapters import load_adapter
from peftqa.model.prompts import encode_and_cut, first_token_ids
from peftqa.model.task import FILE, BaseModelReference, read_task

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors", FILE)
HUB_ID = r"\w[\w.-]*/\w[\w.-]*"
MAX_CHARACTERS = 100_000  # of a question or an abstract; PubMedQA's longest abstract has about 4,000
COVERAGE = 0.8  # as `evaluate.coverage` of the report
BATCH_SIZE = 16


class Prompt(NamedTuple):
    ids: np.ndarray  # int32 token ids that the model reads
    cut: list[int]  # token ids of the abstract that did not fit


class Answer(NamedTuple):
    label: str
    probabilities: dict[str, float]  # of each label
    sure: bool | None  # whether it is sure enough to stand without a person; None without an adapter

    @property
    def confidence(self) -> float:
        return max(self.probabilities.values())


class Answerer:
    """An adapter on its frozen model, or with `untrained` that model alone, asked as the adapter was in training.

    folder: as `find_adapter` finds it; base: as `find_base` takes it; dtype: None for the one that it was trained in.
    coverage: the share of validation answers that were sure enough. Raises UserError where a file is missing or wrong.
    """

    def __init__(
        self,
        folder: Path,
        base: str | None = None,
        untrained: bool = False,
        dtype: str | None = None,
        coverage: float = COVERAGE,
    ) -> None:
        self.task = read_task(folder)
        self.threshold = None if untrained else self.task.threshold(coverage)
        files = self.task.base_model
        base_folder = find_base(files, folder, base)

        import torch

        from peftqa.model.backbone import load_backbone, load_tokenizer

        settings = ModelSettings(
            name=files.name,
            revision=files.revision,
            dtype=dtype or files.dtype,
            fast=True,
            attention="auto",
            dropout=0.0,
            threads=torch.get_num_threads(),
        )
        self.tokenizer = load_tokenizer(base_folder)
        self.label_token_ids = first_token_ids(self.tokenizer, self.task.labels)
        self.model = load_backbone(base_folder, settings)
        if not untrained:
            self.model = load_adapter(self.model, folder)

    def encode(self, question: str, abstract: str) -> Prompt:
        """What the model reads. Raises UserError where a text is empty, too long or no text."""
        texts = {"question": plain_text("question", question), "context": plain_text("abstract", abstract)}
        template = self.task.template
        try:
            ((ids, cut),) = encode_and_cut(
                self.tokenizer, pd.DataFrame([{"id": ""} | texts]), template, self.task.labels
            )
        except UserError:
            raise UserError(
                f"the question is too long: it and the instruction must fit into {template.max_tokens} tokens"
            ) from None
        return Prompt(ids, cut)

    def answer(self, prompts: Sequence[Prompt]) -> list[Answer]:
        """An answer to each prompt, computed in batches of similar length."""
        from peftqa.model.scoring import label_probabilities

        labels = self.task.labels
        rows = label_probabilities(
            self.model, [prompt.ids for prompt in prompts], self.label_token_ids, BATCH_SIZE, "answering"
        )
        return [
            Answer(
                str(label),
                dict(zip(labels, row.tolist(), strict=True)),
                None if self.threshold is None else bool(row.max() >= self.threshold),
            )
            for label, row in zip(predict(rows, labels), rows, strict=True)
        ]

    def text(self, ids: Iterable[int]) -> str:
        """Token ids as text on one line that a terminal can show."""
        text = self.tokenizer.decode(list(ids))
        return "".join(character if character.isprintable() else " " for character in text)


def plain_text(name: str, text: str) -> str:
    """The text with single spaces, as `clean` leaves it. Raises UserError, which calls it `name`, where it is none."""
    if len(text) > MAX_CHARACTERS:
        raise UserError(f"the {name} has {len(text):,} characters; at most {MAX_CHARACTERS:,} are read")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UserError(f"the {name} is no UTF-8 text") from None
    text = " ".join(text.split())
    if not text:
        raise UserError(f"the {name} is empty")
    return text


# ---------------------------------------------------------------------------------------------------------------------
# Where the files are


def find_adapter(name: str) -> Path:
    """An adapter's folder: `name` itself, or OWNER/NAME of the Hub, with @COMMIT for one of its commits.

    Raises UserError where it lacks one of ADAPTER_FILES; weights in another format are never read.
    """
    folder = Path(name)
    if not folder.is_dir():
        if not re.fullmatch(HUB_ID + "(@[0-9a-f]{40})?", name):
            raise UserError(f"{name} is no folder, and no OWNER/NAME or OWNER/NAME@COMMIT of the Hub.")
        repository, _, commit = name.partition("@")
        folder = snapshot(repository, commit or None, ADAPTER_FILES, f"{name} is no folder, and {repository}")
    missing = [file for file in ADAPTER_FILES if not (folder / file).is_file()]
    if missing:
        raise UserError(
            f"{name} has no {missing[0]}; name the folder of an adapter that this project trained, such as "
            "models/adapters/prefix/fold-0/seed-42."
        )
    return folder


def find_base(files: BaseModelReference, adapter: Path, given: str | None) -> Path:
    """The folder with the frozen model's files, known by their digest.

    The folder `given`; else `models/base` beside the adapter, as the pipeline leaves it, or in a folder above; else the
    Hub's, from its cache where they are there. Raises UserError where the files are others or nowhere.
    """
    if given is not None:
        above = [Path(given)]
    else:
        above = [parent / place for parent in adapter.resolve().parents for place in ("base", "models/base")]
        above += [Path(files.name)] if not is_commit(files.revision) else []
    for folder in above:
        if (folder / "config.json").is_file() and folder_digest(folder) == files.digest:
            return folder
    if given is not None:
        raise UserError(f"{given} does not hold the files of {files.name} that the adapter was trained on.")
    if not is_commit(files.revision):
        raise UserError(
            f"the model that {adapter} was trained on, {files.name}, is not beside it; name its folder with --base."
        )
    folder = snapshot(files.name, files.revision, MODEL_FILES, f"its base model {files.name}")
    if folder_digest(folder) != files.digest:
        raise UserError(f"{folder} is damaged: its files are not those that the adapter was trained on; delete it.")
    return folder
