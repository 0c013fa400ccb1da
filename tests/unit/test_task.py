"""The file beside an adapter that says how it must be asked."""

import json

import numpy as np
import pandas as pd
import pytest

from peftqa.config.params import read_params
from peftqa.errors import UserError
from peftqa.model.task import (
    FILE,
    SHARES,
    WEIGHTS,
    BaseModelReference,
    Task,
    confidence_quantiles,
    describe_training,
    read_task,
    weights_digest,
    write_task,
)
from tests.conftest import ROOT
from tests.tiny import WORDS, tiny_tokenizer

HALVES = [" ".join(WORDS[start:38:2]) for start in (0, 1)]
# Each token is in two questions or more, so that none is rare.
QUESTIONS = pd.DataFrame(
    {
        "question": ["is risk higher", "are results lower in patients", "+ +", "+ +", HALVES[0]],
        "context": [*HALVES, *[" ".join("+" * 10)] * 2, HALVES[1]],
    }
)


def task(**changes) -> Task:
    params = read_params(ROOT / "params.yaml")
    base = BaseModelReference(name="org/model", revision="0" * 40, digest=f"sha256:{'1' * 64}", dtype="auto")
    values = {
        "weights": "2" * 64,
        "trainable_params": 10,
        "base_model": base,
        "labels": params.data.labels,
        "template": params.template,
        "confidence": np.linspace(0.5, 1, len(SHARES)).tolist(),
        "training": describe_training(tiny_tokenizer(), QUESTIONS, "made-up questions"),
    }
    return Task(**values | changes)


@pytest.fixture
def folder(tmp_path):
    """An adapter's folder as training leaves it."""
    (tmp_path / WEIGHTS).write_bytes(bytes(range(256)))
    write_task(tmp_path, task(weights=weights_digest(tmp_path)))
    return tmp_path


def test_what_is_written_is_read_again_and_equal_tasks_make_equal_bytes(folder):
    first = (folder / FILE).read_bytes()
    write_task(folder, read_task(folder))
    assert (folder / FILE).read_bytes() == first and first.endswith(b"}\n")


@pytest.mark.parametrize("content", [bytes(range(255)) + b"\0", bytes(range(255)), b""])
def test_weights_that_training_did_not_write_are_noticed(folder, content):
    (folder / WEIGHTS).write_bytes(content)
    with pytest.raises(UserError, match=f"{WEIGHTS} is damaged: its sha256 is not the one in {FILE}"):
        read_task(folder)


def test_the_threshold_lets_the_share_asked_for_through():
    certain = np.random.default_rng(0).uniform(0.5, 1, 1000)
    probabilities = np.stack([certain, 1 - certain], axis=1)
    probabilities[::2] = probabilities[::2, ::-1]  # confidence is that of the label given, whichever it is
    quantiles = confidence_quantiles(probabilities)
    for coverage in (0.2, 0.5, 0.8, 0.95):
        answered = (certain >= task(confidence=quantiles).threshold(coverage)).mean()
        assert answered == pytest.approx(coverage, abs=0.01)
    assert task(confidence=[0.9] * len(SHARES)).threshold(1) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda values: values.pop("labels"), "(labels: missing key)"),
        (lambda values: values.pop("trainable_params"), "(trainable_params: missing key)"),
        (lambda values: values.update(format=1), "(format: 1 is not allowed: Input should be 2)"),
        (lambda values: values.update(labels=["yes", "<script>"]), "labels.1"),
        (lambda values: values["base_model"].update(revision="main"), "base_model.revision"),
        (lambda values: values["template"].update(text="{question} {instruction}"), "must contain {context}"),
        (lambda values: values["template"].update(max_tokens=10**9), "template.max_tokens"),
        (lambda values: values["template"].update(instruction="{labels} {labels:>3000000000}"), "template.instruction"),
        (lambda values: values["template"].update(instruction="{labels[a]}"), "template.instruction"),
        (lambda values: values["confidence"].pop(), "confidence"),
        (lambda values: values["training"].update(tokens="f"), "training.tokens"),
        (lambda values: values["training"]["question"].update(rare=2), "training.question.rare"),
        (lambda values: values.update(run="os.system"), "run: unknown key"),
        (lambda values: values["training"].update(data="a" * 2**23), "Invalid JSON"),
    ],
)
def test_a_file_that_is_not_a_task_is_refused_with_what_is_wrong(folder, change, message):
    values = json.loads((folder / FILE).read_text())
    change(values)
    (folder / FILE).write_text(json.dumps(values))
    with pytest.raises(UserError, match=f"{FILE} is damaged or of an earlier version") as error:
        read_task(folder)
    assert message in str(error.value)


@pytest.mark.parametrize("name", [FILE, WEIGHTS])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(UserError, match=f"{name} is missing; name the folder of an adapter"):
        read_task(folder)


@pytest.mark.parametrize("content", [b"\xff{", b"", b"[" * 10**6])
def test_bytes_that_are_not_json_are_refused(folder, content):
    (folder / FILE).write_bytes(content)
    with pytest.raises(UserError, match="is damaged"):
        read_task(folder)


LIKE = {"question": "is risk lower in patients", "context": HALVES[0]}


@pytest.mark.parametrize(
    ("part", "text", "words"),
    [
        ("context", HALVES[0], ""),
        ("question", HALVES[1], ""),
        ("question", "is", "the question has 1 tokens, and in training it had 3 to"),
        ("context", HALVES[0] * 3, "the abstract has"),
        ("context", "methods", "the abstract has 1 tokens"),
        ("context", " ".join(["xqzv"] * 4), "5.00 tokens per word, and in training it had 2.00 at most"),
        ("context", " ".join("%" * 10), "50% of the abstract's tokens are in no training question"),
        ("question", " ".join("\u75bc\u75db\u8f83\u8f7b"), "50% of the question's tokens are in no training question"),
    ],
)
def test_a_question_unlike_all_training_questions_is_told_from_them(part, text, words):
    training = describe_training(tiny_tokenizer(), QUESTIONS, "made-up questions")
    found = training.unlike(tiny_tokenizer(), LIKE | {part: text})
    assert words in found and bool(words) == bool(found)


def test_no_training_question_is_unlike_the_training_questions():
    training = describe_training(tiny_tokenizer(), QUESTIONS, "made-up questions")
    assert {training.unlike(tiny_tokenizer(), row) for row in QUESTIONS.to_dict("records")} == {""}


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ("PubMedQA (PQA-L)", "PubMedQA (PQA-L)"),
        ("Synthetic abstracts", "synthetic data (Synthetic abstracts)"),
        ("\x1b[2Ja\n b", "[2Ja b"),
    ],
)
def test_the_data_are_named_so_that_a_terminal_can_show_it(data, name):
    assert describe_training(tiny_tokenizer(), QUESTIONS, data).name == name
