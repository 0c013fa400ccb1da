"""The stages that run no model, as processes, from raw files to the answers of the baselines."""

import json

import pandas as pd
import pytest

from peftqa.data.files import read_table


@pytest.fixture
def raw(workspace):
    """60 raw records, 20 of each label, 30 of them the official test set."""
    records = {
        str(5000 - number): {
            "QUESTION": f'Is {number} >\u00a05, "really"?',
            "CONTEXTS": [f"<i>{number}</i>,\nmeasured.", "NA"],
            "LONG_ANSWER": "SECRET",
            **dict.fromkeys(("reasoning_required_pred", "reasoning_free_pred", "final_decision"), label),
        }
        for number, label in enumerate(["yes", "no", "maybe"] * 20)
    }
    folder = workspace.folder / "data/raw"
    folder.mkdir(parents=True)
    (folder / "ori_pqal.json").write_text(json.dumps(records))
    test_ids = {pmid: values["final_decision"] for pmid, values in list(records.items())[:30]}
    (folder / "test_ground_truth.json").write_text(json.dumps(test_ids))
    return records


@pytest.mark.slow
@pytest.mark.parametrize(
    ("protocol", "labels", "folds", "sizes"),
    [
        ("random", ["yes", "no"], 1, [24, 8, 8]),
        ("official", ["yes", "no", "maybe"], 10, [27, 3, 30]),
        ("cross_validation", ["yes", "no", "maybe"], 10, [48, 6, 6]),
    ],
)
def test_raw_files_become_three_parts_a_fold(workspace, raw, protocol, labels, folds, sizes):
    workspace.set(data__labels=labels, split__protocol=protocol, split__train=0.6, split__val=0.2, split__test=0.2)
    for stage in ("clean", "split"):
        result = workspace.run(stage)
        assert result.returncode == 0, result.stderr
        assert result.stdout.count("\n") == 1 and result.stderr == ""
    assert workspace.files("data/clean") == ["counts.json", "pubmedqa.csv"]
    # Every fold of the protocol, not only those that split.folds lists: one more fold must not change the others.
    assert workspace.files("data/split") == [
        f"fold-{fold}/{name}.csv" for fold in range(folds) for name in ("test", "train", "val")
    ]
    kept = {pmid for pmid, values in raw.items() if values["final_decision"] in labels}
    for fold in range(folds):
        folder = workspace.folder / f"data/split/fold-{fold}"
        parts = {name: read_table(folder / f"{name}.csv") for name in ("train", "val", "test")}
        assert [len(part) for part in parts.values()] == sizes
        assert all(set(part["label"]) == set(labels) for part in parts.values())
        rows = pd.concat(parts.values()).set_index("id", verify_integrity=True)
        assert set(rows.index) == kept
        assert rows.loc["5000", "question"] == 'Is 0 > 5, "really"?'
        assert rows.loc["5000", "context"] == "<i>0</i>, measured. NA"
        assert not any("SECRET" in path.read_text() for path in folder.iterdir())
    counts = json.loads((workspace.folder / "data/clean/counts.json").read_text())
    assert counts["labels"] == dict.fromkeys(labels, 20)


def test_a_stage_reports_a_fault_as_one_sentence(workspace, raw, refused):
    assert "data/clean/pubmedqa.csv is missing" in refused(workspace.run("split"))
    del raw["4999"]["QUESTION"]
    (workspace.folder / "data/raw/ori_pqal.json").write_text(json.dumps(raw))
    assert "4999.QUESTION: missing key" in refused(workspace.run("clean"))
