"""Ask a trained adapter a question: where its files are, and the answer. Imports torch once a model is loaded."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from peftqa.config.params import ModelSettings
from peftqa.errors import UserError, one_line
from peftqa.evaluation.predictions import predict
from peftqa.fetch.digest import MODEL_FILES, folder_digest, is_commit
from peftqa.fetch.hub import snapshot
from peftqa.model.adapters import load_adapter
from peftqa.model.prompts import encode_and_cut, first_token_ids
from peftqa.model.task import FILE, PARTS, WEIGHTS, BaseModelReference, read_task

ADAPTER_FILES = ("adapter_config.json", WEIGHTS, FILE)
HUB_ID = r"\w[\w.-]*/\w[\w.-]*(@[0-9a-f]{40})?"
MAX_CHARACTERS = 100_000  # of a question or an abstract; PubMedQA's longest abstract has about 4,000
COVERAGE = 0.8  # as `evaluate.coverage` of the report
BATCH_SIZE = 16
# How a dictionary or a list begins when a program wrote it into a cell, as that of a data set of the Hub.
DICTIONARY = re.compile(r"""\{\s*(['"}]|\d+\s*:|$)""")
LIST = re.compile(r"""(array\(|\()?\[\s*(['"\[\]{]|[-\d.,\s]*\]?$)""")
PART = re.compile(r"""['"]((?:context|abstract|question|text)s?)['"]\s*:""", re.IGNORECASE)


class Prompt(NamedTuple):
    ids: np.ndarray  # int32 token ids that the model reads
    cut: list[int]  # token ids of the abstract that did not fit
    unlike: str  # in what it is unlike all training questions, in words; "" if in nothing


class Answer(NamedTuple):
    label: str
    probabilities: dict[str, float]  # of each label
    sure: bool | None  # whether it is sure enough to do without a person; None without an adapter

    @property
    def confidence(self) -> float:
        return max(self.probabilities.values())


class Answerer:
    """An adapter on its frozen model, or with `untrained` that model alone, asked as the adapter was in training.

    folder: as `find_adapter` finds it; base: as `find_base` takes it; dtype: None for the one that it was trained in.
    coverage: the share of validation answers that were sure enough. Raises UserError if a file is missing or wrong.
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
        self.name = one_line(files.name) + (", not trained" if untrained else f", trained on {self.task.training.name}")
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
        """What the model reads. Raises UserError if a text is empty, too long or not a text."""
        given = zip(PARTS.items(), (question, abstract), strict=True)
        texts = {part: plain_text(name, text) for (part, name), text in given}
        template, labels = self.task.template, self.task.labels
        try:
            ((ids, cut),) = encode_and_cut(self.tokenizer, pd.DataFrame([{"id": ""} | texts]), template, labels)
        except UserError:
            raise UserError(
                f"the question is too long: it and the instruction must fit into {template.max_tokens} tokens"
            ) from None
        return Prompt(ids, cut, self.task.training.unlike(self.tokenizer, texts))

    def answer(self, prompts: Sequence[Prompt]) -> list[Answer]:
        """An answer to each prompt, computed in batches of similar length."""
        from peftqa.model.scoring import label_probabilities

        ids, labels = [prompt.ids for prompt in prompts], self.task.labels
        rows = label_probabilities(self.model, ids, self.label_token_ids, BATCH_SIZE, "answering")
        sure = [
            None if self.threshold is None else not prompt.unlike and bool(row.max() >= self.threshold)
            for prompt, row in zip(prompts, rows, strict=True)
        ]
        probabilities = (dict(zip(labels, row.tolist(), strict=True)) for row in rows)
        return [Answer(*values) for values in zip(map(str, predict(rows, labels)), probabilities, sure, strict=True)]

    def text(self, ids: Iterable[int]) -> str:
        """Token ids as text on one line that a terminal can show."""
        return one_line(self.tokenizer.decode(list(ids)))


def plain_text(name: str, text: str) -> str:
    """The text with single spaces, as `clean` leaves it. Raises UserError, which calls it `name`, if it is not one."""
    if len(text) > MAX_CHARACTERS:
        raise UserError(f"the {name} has {len(text):,} characters; at most {MAX_CHARACTERS:,} are read")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UserError(f"the {name} is not UTF-8 text") from None
    text = " ".join(text.split())
    if not text:
        raise UserError(f"the {name} is empty")
    if DICTIONARY.match(text):
        part = PART.search(text)
        keep = f"its part {part[1]!r}, as text" if part else f"the part of it that is the {name}"
        raise UserError(f"the {name} is a dictionary; keep only {keep}")
    if LIST.match(text):
        raise UserError(f"the {name} is a list; join its parts into one text")
    return text


# ---------------------------------------------------------------------------------------------------------------------
# Where the files are


def find_adapter(name: str) -> Path:
    """An adapter's folder: `name` itself, or OWNER/NAME of the Hub, with @COMMIT for one of its commits.

    Raises UserError if it lacks one of ADAPTER_FILES; weights in another format are never read.
    """
    folder = Path(name)
    if not folder.is_dir():
        if not re.fullmatch(HUB_ID, name):
            raise UserError(f"{name} is not a folder, and not OWNER/NAME or OWNER/NAME@COMMIT of the Hub.")
        repository, _, commit = name.partition("@")
        folder = snapshot(repository, commit or None, ADAPTER_FILES, f"{name} is not a folder, and {repository}")
    missing = [file for file in ADAPTER_FILES if not (folder / file).exists()]
    if missing:
        raise UserError(
            f"{name} has no {missing[0]}; name the folder of an adapter that this project trained, such as "
            "models/adapters/prefix/fold-0/seed-42."
        )
    return folder


def find_base(files: BaseModelReference, adapter: Path, given: str | None) -> Path:
    """The folder with the frozen model's files, known by their digest.

    The folder `given`; else `models/base` beside the adapter, as the pipeline leaves it, or in a folder above; else the
    Hub's, from its cache if they are there. Raises UserError if the files are others or nowhere.
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
        raise UserError(f"{given} does not have the files of {files.name} that the adapter was trained on.")
    if not is_commit(files.revision):
        raise UserError(
            f"the model that {adapter} was trained on, {files.name}, is not beside it; name its folder with --base."
        )
    folder = snapshot(files.name, files.revision, MODEL_FILES, f"its base model {files.name}")
    if folder_digest(folder) != files.digest:
        raise UserError(f"{folder} is damaged: its files are not those that the adapter was trained on; delete it.")
    return folder
