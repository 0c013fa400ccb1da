"""What an adapter's folder says of how it must be asked."""

import json

import numpy as np
import pytest

from peftqa.config.params import read_params
from peftqa.errors import UserError
from peftqa.model.task import FILE, SHARES, BaseModelReference, Task, confidence_quantiles, read_task, write_task
from tests.conftest import ROOT


def task(**changes) -> Task:
    params = read_params(ROOT / "params.yaml")
    base = BaseModelReference(name="org/model", revision="0" * 40, digest=f"sha256:{'1' * 64}", dtype="auto")
    values = {
        "base_model": base,
        "labels": params.data.labels,
        "template": params.template,
        "confidence": np.linspace(0.5, 1, len(SHARES)).tolist(),
    }
    return Task(**values | changes)


def test_what_is_written_is_read_again_and_equal_tasks_make_equal_bytes(tmp_path):
    write_task(tmp_path, task())
    first = (tmp_path / FILE).read_bytes()
    assert read_task(tmp_path) == task()
    write_task(tmp_path, read_task(tmp_path))
    assert (tmp_path / FILE).read_bytes() == first and first.endswith(b"}\n")


def test_the_threshold_lets_the_share_asked_for_through():
    certain = np.random.default_rng(0).uniform(0.5, 1, 1000)
    probabilities = np.stack([certain, 1 - certain], axis=1)
    probabilities[::2] = probabilities[::2, ::-1]  # confidence is that of the label given, whichever it is
    quantiles = confidence_quantiles(probabilities)
    for coverage in (0.2, 0.5, 0.8, 0.95):
        answered = (certain >= task(confidence=quantiles).threshold(coverage)).mean()
        assert answered == pytest.approx(coverage, abs=0.01)


def test_full_coverage_leaves_no_answer_to_a_person_however_unsure():
    assert task(confidence=[0.9] * len(SHARES)).threshold(1) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda values: values.pop("labels"), "labels: Field required"),
        (lambda values: values.update(labels=["yes", "<script>"]), "labels.1"),
        (lambda values: values.update(format=2), "format"),
        (lambda values: values["template"].update(text="{question} {instruction}"), "must contain {context}"),
        (lambda values: values["confidence"].pop(), "confidence"),
        (lambda values: values.update(run="os.system"), "run: Extra inputs are not permitted"),
    ],
)
def test_a_file_that_is_no_task_is_refused_with_what_is_wrong(tmp_path, change, message):
    values = json.loads(task().model_dump_json())
    change(values)
    (tmp_path / FILE).write_text(json.dumps(values))
    with pytest.raises(UserError, match=f"{FILE} is damaged or of another version") as error:
        read_task(tmp_path)
    assert message in str(error.value)


def test_bytes_that_are_no_json_and_a_missing_file_are_refused(tmp_path):
    with pytest.raises(UserError, match=f"has no {FILE}"):
        read_task(tmp_path)
    (tmp_path / FILE).write_bytes(b"\xff{")
    with pytest.raises(UserError, match="is damaged"):
        read_task(tmp_path)
