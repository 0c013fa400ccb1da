"""PubMedQA's records: checked, made a table, cleaned, split."""

import json
import random
from collections import Counter

import pandas as pd
import pytest
from sklearn.model_selection import train_test_split

from peftqa.data.files import COLUMNS, read_table, write_csv
from peftqa.data.records import clean, read_records, read_test_ids, to_table, with_conclusion
from peftqa.data.splits import N_FOLDS, split_cross_validation, split_official, split_random
from peftqa.errors import UserError

YES_NO = ["yes", "no"]
ALL = ["yes", "no", "maybe"]


def record(number=0, **changes):
    return {
        "QUESTION": f"Does treatment {number} help?",
        "CONTEXTS": [f"Group {number} was treated.", "It recovered."],
        "reasoning_required_pred": "yes",
        "reasoning_free_pred": "no",
        "final_decision": "yes",
        "LONG_ANSWER": "The conclusion that gives the answer away.",
        **changes,
    }


def load(tmp_path, records):
    path = tmp_path / "records.json"
    path.write_text(json.dumps(records), encoding="utf-8")
    return read_records(path)


def refusal(call, *arguments):
    with pytest.raises(UserError) as error:
        call(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


def table_of(**counts):
    """A clean table with so many rows of each label, the labels mixed."""
    labels = [label for label, count in counts.items() for _ in range(count)]
    random.Random(0).shuffle(labels)
    ids = [str(1000 + number) for number in range(len(labels))]
    return pd.DataFrame({"id": ids, "question": ids, "context": ids, "label": labels})


def counts(part):
    return dict(Counter(part["label"]))


# The real file


def test_the_real_file_gives_890_rows_of_yes_and_no_and_the_known_split(real_file):
    read = read_records(real_file)
    assert with_conclusion(read, read) == []
    table, report = clean(to_table(read), YES_NO)
    dropped = {"dropped_missing_value": 0, "dropped_other_label": 110, "dropped_duplicate": 0}
    assert report == {"records": 1000, **dropped, "rows": 890, "labels": {"yes": 552, "no": 338}}
    parts = split_random(table, 0.8, 0.1, 0.1, 42)
    assert {name: counts(part) for name, part in parts.items()} == {
        "train": {"yes": 442, "no": 270},
        "val": {"yes": 55, "no": 34},
        "test": {"yes": 55, "no": 34},
    }
    # The same rows as the usual two lines give from the file.
    records = json.loads(real_file.read_text(encoding="utf-8"))
    ids = [pmid for pmid, values in records.items() if values["final_decision"] in YES_NO]
    decide = [records[pmid]["final_decision"] for pmid in ids]
    train, held_out, _, held_out_labels = train_test_split(ids, decide, test_size=0.2, stratify=decide, random_state=42)
    val, test = train_test_split(held_out, test_size=0.5, stratify=held_out_labels, random_state=42)
    for name, expected in {"train": train, "val": val, "test": test}.items():
        assert list(parts[name]["id"]) == sorted(expected, key=ids.index)


# Reading


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"QUESTION": 3}, "7.QUESTION: 3 is not allowed: Input should be a valid string"),
        ({"CONTEXTS": "text"}, "7.CONTEXTS: must be a list"),
        ({"CONTEXTS": ["text", None]}, "7.CONTEXTS.1: None is not allowed: Input should be a valid string"),
        ({"final_decision": "Yes"}, "7.final_decision: 'Yes' is not allowed: Input should be 'yes', 'no' or 'maybe'"),
        ({"QUESTION": "\ud800"}, "Invalid JSON: unexpected end of hex escape at line 1"),
        ({"QUESTION": ..., "CONTEXTS": ...}, "7.QUESTION: missing key; 7.CONTEXTS: missing key"),
    ],
)
def test_a_record_that_does_not_fit_is_named_with_its_field(tmp_path, bad, message):
    broken = {key: value for key, value in record(7, **bad).items() if value is not ...}
    found = refusal(load, tmp_path, {"6": record(6), "7": broken})
    assert message in found and "6." not in found


def test_ten_problems_are_named_and_the_rest_counted(tmp_path):
    message = refusal(load, tmp_path, {str(number): record(QUESTION=0) for number in range(100, 113)})
    assert all(f"{number}.QUESTION: 0 is" in message for number in range(100, 110))
    assert "110." not in message and message.endswith("and 3 more")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is missing"),
        (b"<html>not found</html>", "Invalid JSON"),
        (b'{"1": "\xff"}', "Invalid JSON"),
        (b"[" * 100_000, "Invalid JSON"),
        (b"[]", "the file: must be a group of keys, not []"),
        (b"{}", "does not have a record"),
        (b'{"7": []}', "7: must be a group of keys, not []"),
    ],
)
def test_a_file_that_holds_no_records_is_refused(tmp_path, content, message):
    path = tmp_path / "ori_pqal.json"
    if content is not None:
        path.write_bytes(content)
    assert message in refusal(read_records, path) and str(path) in refusal(read_records, path)


def test_records_with_the_same_pmid_are_refused(tmp_path):
    path, one = tmp_path / "ori_pqal.json", json.dumps(record())
    path.write_text(f'{{"12": {one}, "13": {one}, "12": {one}}}')
    assert "12 is there twice" in refusal(read_records, path)


def test_test_ids_that_no_record_has_are_refused(tmp_path):
    path = tmp_path / "test_ground_truth.json"
    path.write_text('{"1": "yes", "2": "no", "3": "no"}')
    assert read_test_ids(path, {"1", "2", "3", "4"}) == ["1", "2", "3"]
    message = refusal(read_test_ids, path, {"1", "4"})
    assert "2 of 3 test ids" in message and "such as 2" in message


# Table and cleaning


def test_what_is_dropped_is_counted_by_reason(tmp_path):
    same = {"QUESTION": " Does it \n help?", "CONTEXTS": ["One.", "Two."]}
    records = {
        "1": record(1),
        "2": record(2, QUESTION=None),
        "3": record(3, QUESTION=" \n"),
        "4": record(4, CONTEXTS=[]),
        "5": record(5, CONTEXTS=None),
        "6": record(6, final_decision=None),
        "7": record(7, final_decision="maybe"),
        "8": record(8, final_decision="no", **same),
        "9": record(9, QUESTION="Does it help?", CONTEXTS=["One.  Two."], final_decision="yes"),
        "3000": record(10, QUESTION="Does it help?"),
        "20": record(7),  # the twin of one that is dropped
    }
    table = to_table(load(tmp_path, records))
    left, report = clean(table, YES_NO)
    assert list(left["id"]) == ["1", "8", "3000", "20"]  # the order of the file
    assert list(left.loc[1]) == ["8", "Does it help?", "One. Two.", "no"]
    dropped = {"dropped_missing_value": 5, "dropped_other_label": 1, "dropped_duplicate": 1}
    assert report == {"records": 11, **dropped, "rows": 4, "labels": {"yes": 3, "no": 1}}
    same = table[table["id"].isin(["8", "9"])].assign(label=["yes", "no"])
    message = refusal(clean, same, YES_NO)
    assert "no usable record has the label no; of 2 records" in message and "1 repeat an earlier one" in message


@pytest.mark.parametrize(
    ("contexts", "found"),
    [
        (["It was tried.", "The conclusion that gives the answer away."], True),
        (["It was tried; the  Conclusion\nthat gives the answer away, as shown."], True),
        (["The conclusion", "that gives the answer away"], True),
        (["The conclusion that gives the answer."], False),
        (None, False),
    ],
)
def test_a_conclusion_that_is_repeated_in_the_context_is_found(tmp_path, contexts, found):
    short = record(LONG_ANSWER="It recovered.")  # too short to be looked for
    records = load(tmp_path, {"7": record(7, CONTEXTS=contexts), "8": short, "9": record(CONTEXTS=contexts)})
    assert with_conclusion(records, ["7", "8"]) == ["7"] * found


def test_any_text_survives_a_csv_file(tmp_path):
    texts = ["NA", "null", "", " spaced ", 'a "quoted", text', "two\nlines", "<b>β ≥ 5 µg</b>", "-1.0", "#", "\x00"]
    table = pd.DataFrame(dict.fromkeys(COLUMNS, texts))
    table["id"] = [f"{number:03}" for number in range(len(texts))]
    write_csv(tmp_path / "new" / "table.csv", table)
    assert read_table(tmp_path / "new" / "table.csv").to_dict("list") == table.to_dict("list")


# Splitting


@pytest.mark.parametrize(
    ("fractions", "sizes"),
    [((0.7, 0.15, 0.15), (700, 150, 150)), ((0.7, 0.1, 0.2), (700, 100, 200)), ((0.34, 0.33, 0.33), (340, 330, 330))],
)
def test_the_parts_have_the_fractions_in_rows_and_labels(fractions, sizes):
    parts = split_random(table_of(yes=600, no=400), *fractions, 1)
    assert tuple(len(part) for part in parts.values()) == sizes
    for part, size in zip(parts.values(), sizes, strict=True):
        assert abs(counts(part)["yes"] - 0.6 * size) <= 1
    assert_parts_of_the_table(parts, table_of(yes=600, no=400))


@pytest.mark.parametrize(("yes", "no"), [(50, 2), (50, 1), (1, 1), (5, 5), (500, 4)])
def test_a_split_that_leaves_a_part_without_a_label_is_refused(yes, no):
    message = refusal(split_random, table_of(yes=yes, no=no), 0.8, 0.1, 0.1, 42)
    assert f"yes {yes}" in message and f"no {no}" in message
    assert "cannot be divided into 10 parts" in refusal(split_cross_validation, table_of(yes=yes, no=no), 42)


def assert_parts_of_the_table(parts, table):
    """Each row is in one part, every part has every label and the order of the table."""
    assert sorted(pd.concat(parts.values()).index) == list(table.index)
    assert all(part.equals(table.loc[sorted(part.index)]) for part in parts.values())
    assert all(set(part["label"]) == set(table["label"]) for part in parts.values())


# 10 does not divide 63 and 41: sizes and shares can only be nearly equal.
UNEVEN = {"yes": 63, "no": 41, "maybe": 10}


def assert_stratified(parts, of):
    """The parts have nearly one size, and each nearly a tenth of every label's rows in `of`."""
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1
    for label, count in counts(of).items():
        assert all(abs(counts(part)[label] - count / len(parts)) < 1 for part in parts)


def test_a_cross_validation_fold_validates_on_the_next_folds_test_rows_and_trains_on_the_rest():
    table = table_of(**UNEVEN)
    folds = split_cross_validation(table, 3)
    assert len(folds) == N_FOLDS == 10
    assert sorted(pd.concat(parts["test"] for parts in folds).index) == list(table.index)
    assert_stratified([parts["test"] for parts in folds], table)
    for fold, parts in enumerate(folds):
        assert parts["val"].equals(folds[(fold + 1) % 10]["test"])
        assert_parts_of_the_table(parts, table)


def test_official_folds_test_on_the_official_rows_and_validate_on_ten_parts_of_the_others():
    table = table_of(yes=80, no=60)
    folds = split_official(table, set(table["id"][:37]) | {"not in the table"}, 42)
    assert len(folds) == 10
    for parts in folds:
        assert parts["test"].equals(table[:37])
        assert_parts_of_the_table(parts, table)
    assert sorted(pd.concat(parts["val"] for parts in folds).index) == list(table.index[37:])
    assert_stratified([parts["val"] for parts in folds], table[37:])


def test_the_seed_decides_the_parts():
    table = table_of(yes=60, no=60)
    for split in (
        lambda table, seed: [split_random(table, 0.8, 0.1, 0.1, seed)],
        split_cross_validation,
        lambda table, seed: split_official(table, table["id"][:20], seed),
    ):
        first, again, other = (pd.concat(parts["val"] for parts in split(table, seed)) for seed in (1, 1, 2))
        assert first.equals(again) and not first.equals(other)


def test_an_official_protocol_that_leaves_a_part_without_a_label_is_refused():
    table = table_of(yes=20, no=20)
    yes, no = (list(table["id"][table["label"] == label]) for label in YES_NO)
    assert "no record in the official test set has the label no" in refusal(split_official, table, yes[:5], 1)
    assert "no record outside the official test set has the label yes" in refusal(
        split_official, table, yes + no[:5], 1
    )
    message = refusal(split_official, table, yes[:5] + no[:11], 1)
    assert "24 rows (yes 15, no 9) cannot be divided into 10 parts" in message
