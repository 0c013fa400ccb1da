"""Ask a trained adapter a question: where its files are, and the answer. Imports torch once a model is loaded."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from peftqa.config.params import ModelSettings
from peftqa.data.digest import MODEL_FILES, folder_digest, is_commit
from peftqa.data.text import plain_text
from peftqa.errors import UserError, one_line
from peftqa.evaluation.predictions import predict
from peftqa.fetch.hub import snapshot
from peftqa.model.adapters import load_adapter
from peftqa.model.prompts import encode_and_cut, first_token_ids
from peftqa.model.task import FILE, PARTS, WEIGHTS, BaseModelReference, read_task

ADAPTER_FILES = ("adapter_config.json", WEIGHTS, FILE)
HUB_ID = r"\w[\w.-]*/\w[\w.-]*(@[0-9a-f]{40})?"
BATCH_SIZE = 16


class Prompt(NamedTuple):
    ids: np.ndarray  # int32 token ids that the model reads
    cut: list[int]  # token ids of the abstract that did not fit
    unlike: str  # how it is unlike all training questions, in words; "" if it is not


class Answer(NamedTuple):
    label: str
    probabilities: dict[str, float]  # of each label
    sure: bool | None  # whether it is sure enough to do without a person; None without an adapter


class Answerer:
    """An adapter on its frozen model, or (`untrained`) that model alone, with the prompt used in training.

    folder: as `find_adapter` finds it; base: as `find_base` takes it.
    coverage: the share of validation answers that were sure enough. Raises UserError if a file is missing or wrong.
    """

    def __init__(self, folder: Path, base: str | None = None, untrained=False, coverage: float = 0.8) -> None:
        self.task = read_task(folder)
        self.coverage, self.threshold = coverage, None if untrained else self.task.threshold(coverage)
        files = self.task.base_model
        self.name = one_line(files.name) + (", not trained" if untrained else f", trained on {self.task.training.name}")
        base_folder = find_base(files, folder, base)

        import torch

        from peftqa.model.backbone import load_backbone, load_tokenizer

        how = {"fast": True, "dropout": 0.0, "threads": torch.get_num_threads()}
        settings = ModelSettings(name=files.name, revision=files.revision, dtype=files.dtype, **how)
        self.tokenizer = load_tokenizer(base_folder)
        self.label_token_ids = first_token_ids(self.tokenizer, self.task.labels)
        self.model = load_backbone(base_folder, settings)
        if not untrained:
            self.model = load_adapter(self.model, folder)

    def encode(self, question: str, abstract: str) -> Prompt:
        """What the model reads. Raises UserError if a text is empty, too long or not a text."""
        given = zip(PARTS.items(), (question, abstract), strict=True)
        texts = {part: plain_text(name, text) for (part, name), text in given}
        template, row = self.task.template, pd.DataFrame([{"id": ""} | texts])
        try:
            ((ids, cut),) = encode_and_cut(self.tokenizer, row, template, self.task.labels)
        except UserError:
            limit = f"it and the instruction must fit into {template.max_tokens} tokens"
            raise UserError(f"the question is too long: {limit}") from None
        return Prompt(ids, cut, self.task.training.unlike(self.tokenizer, texts))

    def answer(self, prompts: Sequence[Prompt]) -> list[Answer]:
        """An answer to each prompt, computed in batches of similar length."""
        from peftqa.model.scoring import label_probabilities

        ids, labels = [prompt.ids for prompt in prompts], self.task.labels
        rows = label_probabilities(self.model, ids, self.label_token_ids, BATCH_SIZE, "answering")
        answers = []
        for prompt, label, row in zip(prompts, predict(rows, labels), rows, strict=True):
            sure = None if self.threshold is None else not prompt.unlike and bool(row.max() >= self.threshold)
            answers.append(Answer(str(label), dict(zip(labels, row.tolist(), strict=True)), sure))
        return answers

    def why_sure(self, prompt: Prompt, answer: Answer) -> str:
        """Whether an answer is sure enough to do without a person, and by what it is judged."""
        if self.threshold is None:
            return "not known: an answer is judged by an adapter's answers on validation, and this is not an adapter"
        if prompt.unlike:
            return f"no, ask a person: it is unlike all training questions ({prompt.unlike})"
        verdict, confidence = "yes" if answer.sure else "no, ask a person", max(answer.probabilities.values())
        share = f"{100 * self.coverage:g}% of the adapter's answers on validation"
        return f"{verdict}: its confidence is {confidence:.3f}, and {share} reached {self.threshold:.3f}"

    def what_was_cut(self, prompt: Prompt) -> str:
        """How much of the abstract the model could not read."""
        if not prompt.cut:
            return f"nothing; all {len(prompt.ids)} tokens were read"
        end = "first" if self.task.template.truncation_side == "left" else "last"
        return f"the {end} {len(prompt.cut)} tokens of the abstract, to fit into {len(prompt.ids)}"


def find_adapter(name: str) -> Path:
    """An adapter's folder: `name` itself, or OWNER/NAME of the Hub, with @COMMIT for one of its commits."""
    if Path(name).is_dir():
        return Path(name)
    if not re.fullmatch(HUB_ID, name):
        raise UserError(f"{name} is not a folder, and not OWNER/NAME or OWNER/NAME@COMMIT of the Hub.")
    repository, _, commit = name.partition("@")
    return snapshot(repository, commit or None, ADAPTER_FILES, f"{name} is not a folder, and {repository}")


def find_base(files: BaseModelReference, adapter: Path, given: str | None) -> Path:
    """The folder with the frozen model's files, known by their digest.

    The folder `given`; else `base` or `models/base` in a folder above the adapter, or the model's own path; else the
    Hub's files, from its cache if possible. Raises UserError if the files differ or are missing.
    """
    places = [parent / place for parent in adapter.resolve().parents for place in ("base", "models/base")]
    if given is not None:
        places = [Path(given)]
    elif not is_commit(files.revision):
        places.append(Path(files.name))
    for folder in places:
        if (folder / "config.json").is_file() and folder_digest(folder) == files.digest:
            return folder
    if given is not None or not is_commit(files.revision):
        where = given or f"models/base beside {adapter}"
        raise UserError(
            f"the files of {files.name}, the adapter's frozen model, are not in {where}; name them by --base."
        )
    folder = snapshot(files.name, files.revision, MODEL_FILES, f"its base model {files.name}")
    if folder_digest(folder) != files.digest:
        raise UserError(f"{folder} is damaged: its files are not those that the adapter was trained on; delete it.")
    return folder
