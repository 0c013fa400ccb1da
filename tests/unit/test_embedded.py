"""The embedded data and model are what their card says: schema, counts, no short cut to the answer, nothing leaked."""

import json
import re
from collections import Counter
from pathlib import Path
from random import Random

import pytest
from ruamel.yaml import YAML
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline

from embedded import generate, tasks
from peftqa.data.records import read_records, read_test_ids

FOLDER = Path(generate.__file__).parent
MODEL = FOLDER / "pico-t5"
PARAMS = YAML(typ="safe").load(FOLDER / "params.yaml")
SEED = PARAMS["generate"]["seed"]


@pytest.fixture(scope="module")
def records():
    return json.loads((FOLDER / "ori_pqal.json").read_text())


@pytest.fixture(scope="module")
def tokenizer():
    transformers = pytest.importorskip("transformers")
    return transformers.AutoTokenizer.from_pretrained(MODEL)


def context(record):
    return " ".join(record["CONTEXTS"])


def test_the_records_are_read_as_the_real_file_is(records):
    read = read_records(FOLDER / "ori_pqal.json")
    assert Counter(record.final_decision for record in read.values()) == {"yes": 552, "no": 338, "maybe": 110}
    test_ids = read_test_ids(FOLDER / "test_ground_truth.json", read)
    assert Counter(read[pmid].final_decision for pmid in test_ids) == {"yes": 276, "no": 169, "maybe": 55}
    for pmid, record in records.items():
        assert pmid.isdigit() and all(record.values()) and len(record["CONTEXTS"]) == len(record["LABELS"])
        assert record["LONG_ANSWER"] not in context(record)
    assert len({record["QUESTION"] for record in records.values()}) == len(records)
    assert len({context(record) for record in records.values()}) == len(records)


def test_the_generator_writes_the_committed_files_again_to_the_byte(tmp_path):
    generate.write_data_set(SEED, tmp_path)
    for name in ("ori_pqal.json", "test_ground_truth.json"):
        assert (tmp_path / name).read_bytes() == (FOLDER / name).read_bytes()


@pytest.mark.parametrize("ngrams", [(1, 1), (1, 2)])
def test_a_bag_of_words_does_not_answer_the_questions(records, ngrams):
    answered = [record for record in records.values() if record["final_decision"] != "maybe"]
    texts = [f"{record['QUESTION']} {context(record)}" for record in answered]
    labels = [record["final_decision"] for record in answered]
    train, rest, train_labels, rest_labels = train_test_split(
        texts, labels, test_size=0.2, stratify=labels, random_state=42
    )
    _, test, _, test_labels = train_test_split(rest, rest_labels, test_size=0.5, stratify=rest_labels, random_state=42)
    assert test_labels.count("yes") / len(test_labels) == pytest.approx(0.62, abs=0.005)
    model = make_pipeline(CountVectorizer(ngram_range=ngrams), LogisticRegression(max_iter=2000))
    model.fit(train, train_labels)
    assert model.score(train, train_labels) > 0.8  # it can learn: only not this
    assert model.score(test, test_labels) < 0.75


def test_pretraining_and_the_question_sets_share_no_abstract(records):
    judge = generate.make_judge(1, records)
    assert Counter(record["final_decision"] for record in judge.values()) == {"yes": 1240, "no": 760}
    for key in (context, lambda record: record["QUESTION"]):
        assert not {key(record) for record in judge.values()} & {key(record) for record in records.values()}
    reserved = {context(record) for record in [*records.values(), *judge.values()]}
    rng = Random(PARAMS["pretrain"]["seed"])
    stream = [generate.make_study(rng, reserved=False) for _ in range(20000)]
    assert not reserved & {study.abstract for study in stream}
    # Nor could any longer stream: the two draw from disjoint pairs of treatment and population.
    pairs = {(study.treatment, study.population) for study in stream}
    questioned = {generate.make_question(rng, "yes")[0] for _ in range(5000)}
    assert not pairs & {(study.treatment, study.population) for study in questioned}


def test_the_held_out_question_is_not_in_the_mixture():
    def skeleton(question):  # the question's own words, without what it asks about
        return re.compile(re.sub(r"\\{\w\\}", ".+", re.escape(question)))

    held_out = [skeleton(wordings[-1]) for _, claims in generate.CLAIMS.values() for wordings in claims]
    records = generate.make_records(SEED, {"yes": 50, "no": 50})
    assert all(any(form.fullmatch(record["QUESTION"]) for form in held_out) for record in records.values())
    rng = Random(0)
    prompts = [tasks.make_example(rng, text)[0] for text in ("headlines", "results", "abstract") for _ in range(4000)]
    questions = [prompt.split(" Abstract:")[0].removeprefix("Question: ") for prompt in prompts]
    assert any(question.startswith("Does ") for question in questions)
    assert not [question for question in questions for form in held_out if form.search(question)]


def test_no_token_is_unknown_and_labels_are_single_tokens_that_come_back_clean(records, tokenizer):
    for record in records.values():
        assert tokenizer.unk_token_id not in tokenizer(record["QUESTION"] + " " + context(record))["input_ids"]
    for word in ("yes", "no", "maybe"):
        assert len(tokenizer(word)["input_ids"]) == 1
        answer = [*tokenizer(word)["input_ids"], tokenizer.eos_token_id]
        assert tokenizer.decode([tokenizer.pad_token_id, *answer], skip_special_tokens=True) == word


def test_the_model_is_a_small_t5_of_the_flan_family(tokenizer):
    transformers = pytest.importorskip("transformers")
    config = transformers.AutoConfig.from_pretrained(MODEL)
    assert (config.model_type, config.feed_forward_proj) == ("t5", "gated-gelu")
    assert config.num_heads * config.d_kv != config.d_model
    assert config.vocab_size >= len(tokenizer)
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(MODEL, use_safetensors=True)
    assert model.num_parameters() <= 5_000_000
    assert (MODEL / "model.safetensors").stat().st_size <= 12e6
    assert not model.lm_head.weight.equal(model.shared.weight)
    assert model.encoder.embed_tokens.weight is model.shared.weight
