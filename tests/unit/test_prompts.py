"""Prompts, of which only the abstract is cut."""

import pandas as pd
import pytest
from transformers import AutoTokenizer

from peftqa.config.params import Template, read_params
from peftqa.data.records import clean, read_records, to_table
from peftqa.errors import UserError
from peftqa.model.prompts import encode_prompts, few_shot_examples, fill_instruction, first_token_ids
from tests.conftest import ROOT
from tests.tiny import tiny_tokenizer

LABELS = ["yes", "no"]


def template(**changes) -> Template:
    values = {
        "text": "question: {question} abstract: {context} {instruction}",
        "instruction": "answer with {labels}",
        "max_tokens": 512,
        "truncation_side": "left",
    }
    return Template.model_validate(values | changes)


def one_row(question: str = "does treatment reduce risk", context: str = "methods study results lower") -> pd.DataFrame:
    return pd.DataFrame([{"id": "7", "question": question, "context": context, "label": "yes"}])


def decoded(ids: list[int]) -> str:
    return tiny_tokenizer().decode(ids)


def test_the_prompt_is_question_abstract_and_instruction():
    (ids,) = encode_prompts(tiny_tokenizer(), one_row(), template(), ["yes", "no", "maybe"])
    start = "question: does treatment reduce risk abstract: methods study results lower answer with yes"
    assert decoded(ids).replace("<unk>", ",") == f"{start}, no or maybe</s>"


@pytest.mark.parametrize(("side", "left"), [("left", "results lower"), ("right", "methods study")])
def test_only_the_abstract_is_cut_and_on_the_side_that_the_template_names(side, left):
    tokenizer = tiny_tokenizer()
    (whole,) = encode_prompts(tokenizer, one_row(), template(), LABELS)
    (cut,) = encode_prompts(tokenizer, one_row(), template(truncation_side=side, max_tokens=len(whole) - 2), LABELS)
    assert len(cut) == len(whole) - 2
    assert decoded(cut) == f"question: does treatment reduce risk abstract: {left} answer with yes or no</s>"


def test_a_prompt_without_room_for_the_abstract_keeps_question_and_instruction():
    tokenizer = tiny_tokenizer()
    (bare,) = encode_prompts(tokenizer, one_row(context=""), template(), LABELS)
    (cut,) = encode_prompts(tokenizer, one_row(), template(max_tokens=len(bare)), LABELS)
    assert cut.tolist() == bare.tolist()


def test_questions_too_long_for_the_limit_are_refused_with_the_limit_that_all_of_them_need():
    tokenizer = tiny_tokenizer()
    rows = pd.concat(
        [one_row(), one_row(question="does the treatment reduce the risk of a higher risk").assign(id="8")]
    )
    bare = [len(ids) for ids in encode_prompts(tokenizer, rows.assign(context=""), template(), LABELS)]
    assert bare[0] < bare[1]
    with pytest.raises(UserError, match=rf"up to {bare[1]} tokens \(1 of 2 records, such as 8, .* to {bare[1]} at"):
        encode_prompts(tokenizer, rows, template(max_tokens=bare[0]), LABELS)
    with pytest.raises(UserError, match=rf"up to {bare[1]} tokens \(2 of 2 records, such as 7, "):
        encode_prompts(tokenizer, rows, template(max_tokens=3), LABELS)
    assert len(encode_prompts(tokenizer, rows, template(max_tokens=bare[1]), LABELS)) == 2


def test_braces_in_a_question_stay_as_they_are():
    (ids,) = encode_prompts(tiny_tokenizer(), one_row(question="does {context} reduce"), template(), LABELS)
    assert "does {context} reduce" in decoded(ids).replace("<unk>", "")


def test_label_words_are_the_first_tokens_of_the_labels():
    tokenizer = tiny_tokenizer()
    assert first_token_ids(tokenizer, LABELS) == tokenizer.convert_tokens_to_ids(["▁yes", "▁no"])


def test_labels_with_the_same_first_token_are_refused():
    with pytest.raises(UserError, match="first tokens"):
        first_token_ids(tiny_tokenizer(), ["xa", "xb"])  # both begin with the token for a lone white space


@pytest.fixture(scope="module")
def flan_tokenizer(flan_t5_tokenizer):
    return AutoTokenizer.from_pretrained(flan_t5_tokenizer)


def test_flan_t5s_label_words_are_the_known_ones(flan_tokenizer):
    assert first_token_ids(flan_tokenizer, ["yes", "no", "maybe"]) == [4273, 150, 2087]


def test_on_the_real_records_prompts_are_the_tokens_of_the_whole_text_or_cut_to_fit(flan_tokenizer, real_file):
    settings = read_params(ROOT / "params.yaml").template
    table, _ = clean(to_table(read_records(real_file)), LABELS)
    instruction = fill_instruction(settings, LABELS)
    tail = flan_tokenizer(instruction)["input_ids"]
    for row, ids in zip(table.itertuples(), encode_prompts(flan_tokenizer, table, settings, LABELS), strict=True):
        text = settings.text.format(question=row.question, context=row.context, instruction=instruction)
        whole = flan_tokenizer(text)["input_ids"]
        assert len(ids) == min(len(whole), settings.max_tokens) and ids[-len(tail) :].tolist() == tail
        assert len(ids) < len(whole) or ids.tolist() == whole


TRAIN = pd.DataFrame(
    [
        {"id": str(i), "question": "does treatment reduce risk", "context": "results " * i, "label": LABELS[i % 2]}
        for i in range(1, 21)
    ]
)


def test_few_shot_examples_hold_as_many_of_each_label_and_come_shortest_first():
    tokenizer = tiny_tokenizer()
    text = decoded(few_shot_examples(tokenizer, TRAIN, template(), LABELS, count=4, max_tokens=1000, seed=1))
    examples = text.split("question:")[1:]
    assert len(examples) == 4 and [len(e) for e in examples] == sorted(len(e) for e in examples)
    assert sum(e.strip().endswith("or no yes") for e in examples) == 2
    assert sum(e.strip().endswith("or no no") for e in examples) == 2


def test_few_shot_examples_stop_if_the_next_does_not_fit():
    tokenizer = tiny_tokenizer()
    whole = few_shot_examples(tokenizer, TRAIN, template(), LABELS, count=4, max_tokens=1000, seed=1)
    fewer = few_shot_examples(tokenizer, TRAIN, template(), LABELS, count=4, max_tokens=len(whole) - 1, seed=1)
    assert fewer and whole[: len(fewer)] == fewer and decoded(fewer).count("question:") == 3


def test_few_shot_examples_that_are_too_many_or_too_long_are_refused():
    tokenizer = tiny_tokenizer()
    with pytest.raises(UserError, match="few_shot asks for 15 examples labelled yes; the training split has 10"):
        few_shot_examples(tokenizer, TRAIN, template(), LABELS, count=30, max_tokens=1000, seed=1)
    with pytest.raises(UserError, match=r"evaluate\.untrained: max_tokens is 3"):
        few_shot_examples(tokenizer, TRAIN, template(), LABELS, count=2, max_tokens=3, seed=1)
