"""The data stages as processes, from raw files to the three parts."""

import json

import pandas as pd
import pytest

from peftqa.records import read_table


@pytest.fixture
def raw(workspace):
    """60 raw records, 20 of each label, 30 of them the official test set."""
    labels = ["yes", "no", "maybe"] * 20
    records = {
        str(5000 - number): {
            "QUESTION": f'Is {number} >\u00a05, "really"?',
            "CONTEXTS": [f"<i>{number}</i>,\nmeasured.", "NA"],
            "LABELS": [],
            "MESHES": [],
            "YEAR": None,
            "reasoning_required_pred": label,
            "reasoning_free_pred": label,
            "final_decision": label,
            "LONG_ANSWER": "SECRET",
        }
        for number, label in enumerate(labels)
    }
    folder = workspace.folder / "data/raw"
    folder.mkdir(parents=True)
    (folder / "ori_pqal.json").write_text(json.dumps(records))
    test_ids = {pmid: values["final_decision"] for pmid, values in list(records.items())[:30]}
    (folder / "test_ground_truth.json").write_text(json.dumps(test_ids))
    return records


@pytest.mark.parametrize(
    ("protocol", "labels", "sizes"),
    [
        ("random", ["yes", "no"], [24, 8, 8]),
        ("official", ["yes", "no"], [15, 5, 20]),
        ("official", ["yes", "no", "maybe"], [22, 8, 30]),
    ],
)
def test_raw_files_become_three_parts(workspace, raw, protocol, labels, sizes):
    workspace.set(data__labels=labels, split__protocol=protocol, split__train=0.6, split__val=0.2, split__test=0.2)
    for stage in ("clean", "split"):
        result = workspace.run(stage)
        assert result.returncode == 0, result.stderr
        assert result.stdout.count("\n") == 1 and result.stderr == ""
    assert workspace.files(".") == [
        "data/clean/pubmedqa.csv",
        "data/raw/ori_pqal.json",
        "data/raw/test_ground_truth.json",
        "data/split/test.csv",
        "data/split/train.csv",
        "data/split/val.csv",
        "metrics/dataset.json",
        "params.yaml",
    ]
    parts = {name: read_table(workspace.folder / f"data/split/{name}.csv") for name in ("train", "val", "test")}
    assert [len(part) for part in parts.values()] == sizes
    assert all(set(part["label"]) == set(labels) for part in parts.values())
    rows = pd.concat(parts.values()).set_index("id")
    assert set(rows.index) == {pmid for pmid, values in raw.items() if values["final_decision"] in labels}
    assert rows.loc["5000", "question"] == 'Is 0 > 5, "really"?'
    assert rows.loc["5000", "context"] == "<i>0</i>, measured. NA"
    assert not any("SECRET" in path.read_text() for path in (workspace.folder / "data/split").iterdir())
    report = json.loads((workspace.folder / "metrics/dataset.json").read_text())
    assert report["labels"] == dict.fromkeys(labels, 20)


def test_a_stage_reports_a_fault_as_one_sentence(workspace, raw, refused):
    assert "data/clean/pubmedqa.csv is missing" in refused(workspace.run("split"))
    del raw["4999"]["QUESTION"]
    (workspace.folder / "data/raw/ori_pqal.json").write_text(json.dumps(raw))
    assert "4999 (QUESTION: missing field)" in refused(workspace.run("clean"))


def test_the_data_stages_and_the_fetch_import_no_torch(workspace, raw):
    script = """
import runpy, sys
for stage in ("clean", "split"):
    runpy.run_module(f"stages.{stage}", run_name="__main__")
import huggingface_hub, pooch, stages.download, stages.fetch_model
print({"torch", "transformers", "peft", "dvc"} & set(sys.modules))
"""
    process = workspace.start("-c", script)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert out.splitlines()[-1] == "set()"
