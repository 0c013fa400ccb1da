"""The questions of a CSV file: columns kept, bad rows named, and nothing lost where it was killed."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from peftqa.ask import csv_file
from peftqa.ask.answer import Answerer
from peftqa.errors import UserError
from tests.conftest import ROOT
from tests.unit.ask.asking import ABSTRACT, QUESTION, make_adapter, peftqa

pytestmark = pytest.mark.slow
WORDS = "treatment group risk results methods increase reduce higher lower effect patients".split()  # noqa: SIM905


@pytest.fixture(scope="module")
def adapter(tmp_path_factory) -> Path:
    return make_adapter(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def answerer(adapter):
    return Answerer(adapter)


def write_questions(path: Path, count: int) -> list[dict[str, str]]:
    """Rows that differ, with columns of their own that are no part of the question."""
    rows = [
        {
            "Patient, no.": f'{i} "a"',
            "question": f"does {WORDS[i % 11]} reduce {WORDS[i // 11 % 11]}",
            "abstract": " ".join(WORDS[(i * j) % 11] for j in range(1, 3 + 7 * i % 40)),
            "note": "two\nlines, NA" if i % 3 else "",
        }
        for i in range(count)
    ]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return rows


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.DictReader(file))


def answer(source: Path, answerer, **settings) -> csv_file.Summary:
    return csv_file.answer_csv(source, source.with_name("out.csv"), lambda: answerer, settings)


def test_columns_stay_in_their_order_and_every_row_has_the_answer_that_it_has_alone(tmp_path, answerer, monkeypatch):
    monkeypatch.setattr(csv_file, "CHUNK", 7)
    rows = write_questions(tmp_path / "in.csv", 20)
    summary = answer(tmp_path / "in.csv", answerer)
    assert (summary.answered, summary.left_out_count) == (20, 0)
    written = read_csv(tmp_path / "out.csv")
    assert list(written[0]) == [*rows[0], "answer", "p_yes", "p_no", "sure", "tokens_cut"]
    for row, out in zip(rows, written, strict=True):
        assert {name: out[name] for name in row} == row
        prompt = answerer.encode(row["question"], row["abstract"])
        (alone,) = answerer.answer([prompt])
        assert out["answer"] == alone.label and int(out["tokens_cut"]) == len(prompt.cut)
        assert float(out["p_yes"]) == pytest.approx(alone.probabilities["yes"], abs=1e-5)
    assert {out["sure"] for out in written} <= {"true", "false"} and {out["tokens_cut"] for out in written} > {"0"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.csv", "out.csv"]


def test_the_pipelines_own_tables_can_be_asked(tmp_path, answerer):
    (tmp_path / "in.csv").write_text(f"id,question,context,label\n1,{QUESTION},{ABSTRACT},no\n")
    assert answer(tmp_path / "in.csv", answerer).answered == 1


BAD = {
    b"2,,some risk": "the question is empty",
    b"3,is risk lower, ": "the abstract is empty",
    b"4,is risk lower": "it has 2 fields, and the first line has 3",
    b"5,is risk lower,a,b": "it has 4 fields, and the first line has 3",
    b"6,is risk lower,caf\xe9": "the abstract is no UTF-8 text",
    b'7,"is" risk,a': "it is no row of a CSV file (',' expected after '\"')",
    b"8,is risk lower," + b"a" * 100_001: "the abstract has 100,001 characters; at most 100,000 are read",
    b"9," + b"is " * 60 + b",a": "the question is too long: it and the instruction must fit into 40 tokens",
    b"10,is risk lower," + b"a" * 1_000_001: "it is no row of a CSV file (field larger than field limit (1000000))",
}


def test_bad_rows_are_left_out_each_with_its_line_and_reason_and_the_others_answered(tmp_path, answerer):
    lines = [b"\xef\xbb\xbfid,question,context"]  # as spreadsheets begin a file
    for bad in BAD:
        lines += [bad, b"", b'0,"is risk\nlower",a']
    (tmp_path / "in.csv").write_bytes(b"\r\n".join(lines) + b'\r\n99,is risk lower,"never closed')
    summary = answer(tmp_path / "in.csv", answerer)
    assert (summary.answered, summary.left_out_count) == (len(BAD), len(BAD) + 1)
    assert [row["question"] for row in read_csv(tmp_path / "out.csv")] == ["is risk\nlower"] * len(BAD)
    left_out = read_csv(summary.left_out_path)
    assert [row["reason"] for row in left_out] == [*BAD.values(), "it is no row of a CSV file (unexpected end of data)"]
    assert [int(row["line"]) for row in left_out] == [2 + 4 * i for i in range(len(BAD) + 1)]
    assert summary.left_out == [f"line {row['line']}: {row['reason']}" for row in left_out[:3]]


def test_bytes_of_other_columns_stay_as_they_are(tmp_path, answerer):
    (tmp_path / "in.csv").write_bytes(b"name,question,context\nJos\xe9,is risk lower,a\n")
    answer(tmp_path / "in.csv", answerer)
    assert (tmp_path / "out.csv").read_bytes().splitlines()[1].startswith(b"Jos\xe9,is risk lower,a,")


KILLED = """
import os, signal, sys
from pathlib import Path
from peftqa.ask import csv_file
from peftqa.ask.answer import Answerer

moment, chunks = sys.argv[3], int(sys.argv[4])
save, calls = csv_file.save_progress, []

def save_or_die(progress, key, done, *files):
    calls.append(done)
    if len(calls) == chunks and moment == "before":  # of a chunk, the answers have reached the disk in part
        files[0].write(b"half a row")
        files[0].flush()
        os.kill(os.getpid(), signal.SIGKILL)
    save(progress, key, done, *files)
    if len(calls) == chunks:
        os.kill(os.getpid(), signal.SIGKILL)

csv_file.CHUNK, csv_file.save_progress = 4, save_or_die
csv_file.answer_csv(Path(sys.argv[2]), Path(sys.argv[2]).with_name("out.csv"), lambda: Answerer(sys.argv[1]), {})
"""


@pytest.mark.parametrize(("moment", "chunks"), [("before", 1), ("after", 3), ("before", 5)])
def test_a_killed_run_goes_on_and_ends_with_the_bytes_of_one_that_was_not(
    tmp_path, adapter, answerer, monkeypatch, moment, chunks
):
    monkeypatch.setattr(csv_file, "CHUNK", 4)
    source = tmp_path / "killed/in.csv"
    source.parent.mkdir()
    write_questions(source, 18)
    with source.open("a") as file:
        file.write("x,,,\n")
    whole = tmp_path / "whole.csv"
    csv_file.answer_csv(source, whole, lambda: answerer, {})
    code = KILLED.replace("Answerer(sys.argv[1])", "Answerer(Path(sys.argv[1]))")
    command = [sys.executable, "-c", code, adapter, source, moment, str(chunks)]
    assert subprocess.run(command, cwd=ROOT, capture_output=True).returncode == -9
    assert not (source.parent / "out.csv").exists()
    asked = []
    monkeypatch.setattr(answerer, "answer", lambda prompts: asked.extend(prompts) or Answerer.answer(answerer, prompts))
    summary = answer(source, answerer)
    assert (source.parent / "out.csv").read_bytes() == whole.read_bytes()
    left_out = [path.read_bytes() for path in (summary.left_out_path, tmp_path / "whole.left-out.csv")]
    assert left_out[0] == left_out[1] and (summary.answered, summary.left_out_count) == (18, 1)
    assert len(asked) == 18 - min(4 * (chunks - (moment == "before")), 18)
    assert sorted(path.name for path in source.parent.iterdir()) == ["in.csv", "out.csv", "out.left-out.csv"]


@pytest.mark.parametrize("gone", ["out.csv.partial", "out.left-out.csv"])
def test_where_a_file_of_the_interrupted_run_is_gone_it_begins_anew(tmp_path, answerer, monkeypatch, gone):
    monkeypatch.setattr(csv_file, "CHUNK", 4)
    write_questions(tmp_path / "in.csv", 10)
    interrupt(tmp_path / "in.csv", answerer, monkeypatch)
    (tmp_path / gone).unlink()
    assert answer(tmp_path / "in.csv", answerer).answered == 10
    assert len(read_csv(tmp_path / "out.csv")) == 10


def interrupt(source: Path, answerer, monkeypatch, **settings) -> None:
    """A run that ends by Ctrl-C in its second chunk."""

    def answer_once(prompts):
        monkeypatch.setattr(answerer, "answer", press)
        return Answerer.answer(answerer, prompts)

    def press(prompts):
        raise KeyboardInterrupt

    monkeypatch.setattr(answerer, "answer", answer_once)
    with pytest.raises(KeyboardInterrupt):
        answer(source, answerer, **settings)
    monkeypatch.setattr(answerer, "answer", lambda prompts: Answerer.answer(answerer, prompts))
    assert json.loads(source.with_name("out.csv.progress").read_text())["done"]["rows"] == 4


def test_an_interrupted_run_goes_on_only_with_the_same_questions_asked_in_the_same_way(tmp_path, answerer, monkeypatch):
    monkeypatch.setattr(csv_file, "CHUNK", 4)
    source = tmp_path / "in.csv"
    write_questions(source, 10)
    interrupt(source, answerer, monkeypatch, adapter="a", coverage=0.8)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(UserError, match=r"out.csv.progress is of a run with another adapter and coverage; delete it"):
        answer(source, answerer, adapter="b", coverage=0.9)
    content = source.read_bytes()
    source.write_bytes(content + content.splitlines()[-1])
    with pytest.raises(UserError, match="of a run with another input"):
        answer(source, answerer, adapter="a", coverage=0.8)
    source.write_bytes(content)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert answer(source, answerer, adapter="a", coverage=0.8).answered == 10


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("", "its columns are: none"),
        ("question;abstract", "its columns are: question;abstract"),
        ("question,text", "must have one column question and one column abstract"),
        ("question,abstract,context", "must have one column question and one column abstract"),
        ("question,question,abstract", "must have one column question and one column abstract"),
        ("question,abstract,p_yes", "has a column p_yes already; rename it"),
        ('"question,abstract', "its columns are: none"),
    ],
)
def test_a_file_without_the_columns_is_refused_before_it_is_answered(tmp_path, answerer, header, message):
    (tmp_path / "in.csv").write_text(f"{header}\n{QUESTION},{ABSTRACT}\n" if header else "")
    with pytest.raises(UserError) as error:
        answer(tmp_path / "in.csv", answerer)
    assert message in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


def test_what_is_there_already_or_being_written_is_never_written_over(tmp_path, answerer):
    write_questions(tmp_path / "in.csv", 2)
    (tmp_path / "out.csv").write_text("mine")
    with pytest.raises(UserError, match=r"out.csv is there already; delete it, or name another file"):
        answer(tmp_path / "in.csv", answerer)
    (tmp_path / "out.csv").unlink()
    with (tmp_path / "out.csv.partial").open("ab") as file:
        csv_file.lock(file, tmp_path / "out.csv")
        with pytest.raises(UserError, match=r"another process is writing"):
            answer(tmp_path / "in.csv", answerer)


@pytest.mark.parametrize(("source", "target"), [("missing.csv", "out.csv"), (".", "out.csv"), ("in.csv", "no/out.csv")])
def test_files_that_cannot_be_read_or_written_are_named(tmp_path, answerer, source, target):
    write_questions(tmp_path / "in.csv", 2)
    with pytest.raises(UserError, match=r"cannot be (read|written): "):
        csv_file.answer_csv(tmp_path / source, tmp_path / target, lambda: answerer, {})


def test_the_command_says_how_many_rows_were_answered_and_why_others_were_not(tmp_path, adapter):
    (tmp_path / "in.csv").write_text(f"question,abstract\n{QUESTION},{ABSTRACT}\n,{ABSTRACT}\n")
    result = peftqa("ask", "--adapter", adapter, "--csv", "in.csv", "--out", "out.csv", folder=tmp_path)
    assert result.returncode == 0 and result.stderr == ""
    assert result.stdout == (
        "1 rows answered: out.csv\n1 rows left out, see out.left-out.csv: line 3: the question is empty\n"
    )
    again = peftqa("ask", "--adapter", adapter, "--csv", "in.csv", "--out", "out.csv", folder=tmp_path)
    assert again.returncode == 1 and again.stderr.startswith("error: out.csv is there already;")
