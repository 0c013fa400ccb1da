"""The questions of a CSV file: refused before a model is loaded, or each row of it with an answer or a reason."""

import csv
import os
import signal
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path

import pytest

from peftqa.ask import commands, table
from peftqa.ask.answer import Answerer
from peftqa.errors import UserError
from tests.conftest import ROOT
from tests.unit.ask.asking import ABSTRACT, TRAINED_ON, make_adapter, peftqa

ADDED = ["answer", "p_yes", "p_no", "sure", "cut", "error"]
WORDS = TRAINED_ON["question"][1].split()


@pytest.fixture(scope="module")
def adapter(tmp_path_factory) -> Path:
    return make_adapter(tmp_path_factory.mktemp("run"))


def read_csv(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file, strict=True))


def write_questions(path: Path, count: int) -> list[list[str]]:
    rows = [["Patient, no.", "question", "abstract", "note"]]
    for i in range(count):
        abstract = " ".join(WORDS[(i * j) % 11] for j in range(1, 3 + 7 * i % 60))
        rows.append(
            [f'{i} "a"', f"does {WORDS[i % 11]} reduce {WORDS[i // 11 % 11]}", abstract, "two\nlines, NA" * (i % 3)]
        )
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return rows


@pytest.mark.slow
def test_every_row_keeps_its_columns_and_place_and_has_the_answer_that_it_has_alone(tmp_path, adapter):
    answerer = Answerer(adapter)
    rows = write_questions(tmp_path / "in.csv", 20)
    rows.insert(5, ["", " ", ABSTRACT, ""])
    rows.insert(9, ["x", "is " * 60, ABSTRACT, ""])
    with (tmp_path / "in.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    result = peftqa("ask", "--adapter", adapter, "--csv", "in.csv", "--out", "out.csv", folder=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == "out.csv: rows 22, answered 20, not answered 2 (the column error says why)\n"
    written = read_csv(tmp_path / "out.csv")
    assert [row[:4] for row in written] == rows and written[0][4:] == ADDED
    for row, (label, p_yes, _, sure, cut, error) in zip(rows[1:], (row[4:] for row in written[1:]), strict=True):
        if error:
            assert (label, p_yes, sure, cut) == ("", "", "", "")
            continue
        prompt = answerer.encode(row[1], row[2])
        (alone,) = answerer.answer([prompt])
        assert (label, sure, int(cut)) == (alone.label, str(alone.sure).lower(), len(prompt.cut))
        assert float(p_yes) == pytest.approx(alone.probabilities["yes"], abs=1e-5)
    errors = [row[-1] for row in written if row[-1]]
    assert errors[1:] == [
        "the question is empty",
        "the question is too long: it and the instruction must fit into 40 tokens",
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.csv", "out.csv"]


HEADER = b"id,question,abstract\n"
ROW = b"1,is risk lower,a study\n"
GOOD = {
    "capitals and spaces": b"ID, Question ,CONTEXT\n" + ROW,
    "byte order mark": b"\xef\xbb\xbf" + HEADER + ROW,
    "CRLF": (HEADER + ROW).replace(b"\n", b"\r\n"),
    "CR alone": (HEADER + ROW).replace(b"\n", b"\r"),
    "CR and LF in quotes": HEADER + b'"a\rb\r\nc","is\rrisk lower",a study',
    "no line end": HEADER + ROW.rstrip(),
    "empty lines": b"\n" + HEADER + b"\r\n\n" + ROW + b"\n\n",
    "quotes inside an unquoted cell": b'id,question,abstract,"a ""b"""\n1 "x" 5",is risk lower,a study,2" of 3"\n',
    "two columns of one name": b"id,id,question,abstract,\n1,2,is risk lower,a study,\n",
    "line separators of Unicode": HEADER + "1\u2028\x85\x0b,is risk lower,a\u2029study\n".encode(),
}


@pytest.mark.parametrize("content", GOOD.values(), ids=GOOD)
def test_the_files_of_real_programs_are_read_and_written_cell_by_cell(tmp_path, content):
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_bytes(content)
    columns, rows, questions = table.read_questions(source, ADDED)
    assert [tuple(" ".join(text.split()) for text in texts) for texts in questions] == [("is risk lower", "a study")]
    table.write_rows(target, [columns, *rows])
    assert read_csv(target) == [columns, *rows]
    assert table.read_questions(target, ADDED) == (columns, rows, questions)


QUOTE = b'1,is risk lower,"never closed\n'
BAD = {
    b"": "its columns are: none",
    b"\n \n": "its columns are: ",
    HEADER: "has only its first line",
    b"question,text\n1,2\n": "its columns are: question, text",
    b"question,abstract,context\n1,2,3\n": "must name one column question and one column abstract",
    b"question,Question ,abstract\n1,2,3\n": "must name one column question and one column abstract",
    b"question,abstract,p_yes\n1,2,3\n": "has a column p_yes already; rename it",
    b"question,abstract, Error\n1,2,3\n": "has a column Error already; rename it",
    b"question;abstract\nis it, so?;a, b\n": "it seems to be separated by semicolons",
    b'"Question"\t"Abstract"\n"a, ""b"""\tc\n': "it seems to be separated by tabs",
    b"id|question|context\n1|a|b\n": "it seems to be separated by the character |",
    HEADER + ROW + b"2,is it\n": "line 3 has 2 cells, but the first line has 3",
    HEADER + b'"1\n2",is it,a,b\n': "line 2 has 4 cells, but the first line has 3",
    HEADER + ROW + QUOTE + ROW: "line 3 opens a quote that is never closed.",
    HEADER
    + QUOTE
    + ROW * 3
    + b'2,is it,"so, or not"\n': "line 2 opens a quote that is never closed: the quote in line 6 is inside",
    HEADER + QUOTE.rstrip(): "line 2 opens a quote that is never closed",
    HEADER + ROW + b'1,"is" risk lower,a\n': "line 3 has a quote inside a quoted cell",
    b'"question,abstract\n' + ROW: "line 1 opens a quote that is never closed",
    HEADER + ROW + b"2,is it,a\x00b\n": "line 3 has a NUL byte",
    HEADER + ROW + b"2,is it,37 \xb0C\n": "line 3 is not UTF-8; it seems to be Windows-1252: save it as CSV UTF-8",
    HEADER
    + b"2,is it,caf\xe9 and caf\xc3\xa9\n": "line 2 is not UTF-8; it seems to be in another encoding, or damaged",
    HEADER
    + "2,is it,\u0431\u043e\u043b\u044c\u0431\u043e\u043b\u044c\n".encode(
        "cp1251"
    ): "line 2 is not UTF-8; it seems to be in another",
    (HEADER + ROW).decode().encode("utf-16"): "it seems to be UTF-16; save it as CSV UTF-8",
    (HEADER + ROW).decode().encode("utf-16-be"): "it seems to be UTF-16; save it as CSV UTF-8",
    b"PK\x03\x04\x14\x00": "it seems to be an Excel workbook",
}


@pytest.mark.parametrize(("content", "message"), BAD.items())
def test_a_file_that_cannot_be_asked_is_refused_as_a_whole_with_line_and_reason(tmp_path, content, message):
    (tmp_path / "in.csv").write_bytes(content)
    with pytest.raises(UserError) as error:
        table.read_questions(tmp_path / "in.csv", ADDED)
    assert message in str(error.value)


@pytest.mark.parametrize(
    "command", ["{python} -m peftqa {ask} --csv /dev/stdin", "cat in.csv | {python} -m peftqa {ask} --csv -"]
)
@pytest.mark.slow
def test_a_table_comes_from_standard_input_as_a_file_or_a_pipe(tmp_path, adapter, command):
    (tmp_path / "in.csv").write_bytes(HEADER + ROW)
    line = command.format(python=sys.executable, ask=f"ask --adapter {adapter} --out out.csv") + " < in.csv"
    subprocess.run(["bash", "-c", line], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True)
    assert len(read_csv(tmp_path / "out.csv")) == 2


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        ("missing.csv", "out.csv", "No such file or directory: 'missing.csv'"),
        (".", "out.csv", "is a folder"),
        ("/dev/zero", "out.csv", "/dev/zero is a device"),
        ("in.csv", ".", "exists already"),
        ("in.csv", "in.csv", "in.csv exists already; delete it, or name another file"),
        ("in.csv", "link.csv", "link.csv exists already"),
        ("in.csv", "nowhere.csv", "nowhere.csv exists already"),
        ("in.csv", "/dev/null", "/dev/null exists already"),
        ("in.csv", "no/out.csv", "No such file or directory: 'no'"),
        ("in.csv", "in.csv/out.csv", "Not a directory"),
        ("in.csv", "/proc/out.csv", ": '/proc'"),
        ("in.csv", "x" * 300, "File name too long"),
    ],
)
def test_what_is_not_a_file_or_cannot_be_made_is_refused_before_a_model_is_loaded(
    tmp_path, monkeypatch, adapter, source, target, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.csv").write_bytes(HEADER + ROW)
    (tmp_path / "link.csv").symlink_to("in.csv")
    (tmp_path / "nowhere.csv").symlink_to("gone")
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    monkeypatch.setattr(commands, "Answerer", None)  # to call it would fail in another way
    with pytest.raises((UserError, OSError)) as error:
        commands.answer_table(Namespace(adapter=adapter, csv=source, out=Path(target)))
    assert message in str(error.value)
    assert {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


def test_what_another_program_wrote_meanwhile_stays_and_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    (tmp_path / "out.csv").write_text("mine")
    with pytest.raises(UserError, match=r"out.csv was made by another program meanwhile"):
        table.write_rows(tmp_path / "out.csv", [["a"]])
    assert (tmp_path / "out.csv").read_text() == "mine"
    monkeypatch.setattr(os, "fsync", lambda file: os.write(os.open("/dev/full", os.O_WRONLY), b"x"))
    with pytest.raises(OSError, match=r"No space left on device: .*new.csv"):
        table.write_rows(tmp_path / "new.csv", [["a"]])
    assert [path.name for path in tmp_path.iterdir()] == ["out.csv"]


@pytest.mark.parametrize("already", [False, True])
def test_a_disk_without_links_gets_the_file_too_and_never_over_another(tmp_path, monkeypatch, already):
    def refuse(*_):
        if already:
            (tmp_path / "out.csv").write_text("mine")
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    if already:
        with pytest.raises(UserError, match="exists already"):
            table.write_rows(tmp_path / "out.csv", [["a"]])
    else:
        table.write_rows(tmp_path / "out.csv", [["a"]])
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"out.csv": "mine" if already else "a\n"}


@pytest.mark.slow
def test_killed_at_any_moment_it_leaves_no_output_or_a_whole_one(tmp_path, adapter):
    write_questions(tmp_path / "in.csv", 300)
    command = [sys.executable, "-m", "peftqa", "ask", "--adapter", adapter, "--csv", "in.csv", "--out", "out.csv"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    began = time.monotonic()
    subprocess.run(command, cwd=tmp_path, env=environment, check=True)
    seconds, whole = time.monotonic() - began, (tmp_path / "out.csv").read_bytes()
    for share in (0.3, 0.8, 0.95):
        (tmp_path / "out.csv").unlink(missing_ok=True)
        process = subprocess.Popen(command, cwd=tmp_path, env=environment, start_new_session=True)
        time.sleep(share * seconds)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert not (tmp_path / "out.csv").exists() or (tmp_path / "out.csv").read_bytes() == whole
