"""data/eda.ipynb: run on the embedded records and on the real ones, and what of it is stored."""

import json
import shutil
from pathlib import Path

import nbformat
import pytest

from peftqa.data.files import read_table
from tests.clone import SHORT
from tests.conftest import ROOT, Workspace
from tests.notebook import NOTEBOOK, PRIVATE, code_cells, execute, source_digest, strip

# What the notebook has counted itself, for the tests to compare.
LOOK_INSIDE = """
print(json.dumps(counts))
print(json.dumps({name: sorted(part["id"]) for name, part in by_hand.items()}))
print(json.dumps([len(long), results_cut, int(lengths.max())]))
"""
WORDS = 6


@pytest.fixture
def stored() -> nbformat.NotebookNode:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    return notebook


@pytest.fixture
def run(workspace: Workspace, stored, monkeypatch):
    """Runs the stages that the notebook needs, and then the notebook; returns some of its variables."""

    def run(source: Path, tokenizer: Path) -> list:
        for stage in ("download", "clean", "split"):
            result = workspace.run(stage, PUBMEDQA_SOURCE=str(source))
            assert result.returncode == 0, result.stderr
        shutil.copytree(tokenizer, workspace.folder / "models/base")
        monkeypatch.setenv("PYTHONPATH", str(ROOT))
        for variable in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"):
            monkeypatch.setenv(variable, str(workspace.home))  # no setting of this machine's user
        stored.cells.append(nbformat.v4.new_code_cell(LOOK_INSIDE))
        execute(stored, workspace.folder)
        printed = stored.cells.pop().outputs[0].text
        return [json.loads(line) for line in printed.splitlines()]

    return run


def check_counts(workspace: Workspace, counts: dict, by_hand: dict) -> None:
    """The notebook's counts are those of the stage `clean`, and its parts have the rows of the stage `split`."""
    stage = json.loads((workspace.folder / "data/clean/counts.json").read_text())
    assert counts == {name: stage[name] for name in counts}
    for name, ids in by_hand.items():
        assert ids == sorted(read_table(workspace.folder / f"data/split/fold-0/{name}.csv")["id"])


@pytest.mark.slow
def test_on_the_embedded_records_it_counts_what_clean_and_split_count(workspace, run, stored):
    embedded = json.loads((ROOT / "embedded/ori_pqal.json").read_text())
    workspace.set(
        data__sha256=SHORT["data.sha256"],
        data__test_ids_sha256=SHORT["data.test_ids_sha256"],
        template__max_tokens=96,  # shorter than the longest, so that something is cut
    )
    counts, by_hand, (long, _, longest) = run(ROOT / "embedded/ori_pqal.json", ROOT / "embedded/pico-t5")
    check_counts(workspace, counts, by_hand)
    assert counts["labels"] == {"yes": 552, "no": 338} and 0 < long < 890 and longest > 96
    (drawn,) = [cell for cell in code_cells(stored) if PRIVATE in cell.metadata.get("tags", [])]
    shown = [record for pmid, record in embedded.items() if f"QUESTION {pmid}:" in drawn.outputs[0].text]
    assert sorted(record["final_decision"] for record in shown) == ["maybe", "no", "yes"]


@pytest.mark.slow
def test_on_the_real_records_it_prints_and_draws_what_is_stored(workspace, run, stored, real_file, flan_t5_tokenizer):
    before = nbformat.v4.writes(stored)
    counts, by_hand, (long, results_cut, longest) = run(real_file, flan_t5_tokenizer)
    check_counts(workspace, counts, by_hand)
    assert (long, results_cut, longest) == (49, {"on the left": 0, "at the end": 45}, 706)
    strip(stored)
    assert shown(stored) == shown(nbformat.reads(before, as_version=4))


def shown(notebook: nbformat.NotebookNode) -> list:
    """Every output as text; of a picture only that it is there: another machine may draw it a bit otherwise."""
    return [
        [output.get("text") or {kind: kind == "image/png" or data for kind, data in output.data.items()}]
        for cell in code_cells(notebook)
        for output in cell.outputs
    ]


def test_it_is_stored_with_its_output_and_without_what_varies(stored):
    before = nbformat.v4.writes(stored)
    assert stored.metadata.source_sha256 == source_digest(stored), (
        "its code is not that which made its output: `dvc repro split fetch_model`, then `python -m tests.notebook`"
    )
    strip(stored)
    assert nbformat.v4.writes(stored) == before
    outputs = [output for cell in code_cells(stored) for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == 5 and all(len(output.metadata["image/png"]["alt"]) > 60 for output in pictures)
    assert "890 rows" in before


def test_it_has_no_sentence_of_a_record(real_file):
    stored = set(runs_of_words(NOTEBOOK.read_text().replace("\\n", " ").replace('"', " ")))
    for pmid, record in json.loads(real_file.read_text()).items():
        for text in (record["QUESTION"], *record["CONTEXTS"], record["LONG_ANSWER"]):
            assert not stored & set(runs_of_words(text)), pmid


def runs_of_words(text: str) -> list[tuple[str, ...]]:
    words = text.split()
    return list(zip(*(words[start:] for start in range(WORDS)), strict=False))
