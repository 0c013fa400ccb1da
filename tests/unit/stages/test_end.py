"""The one way out of a stage: a sentence for what a user has done or can mend, a traceback for a mistake of ours."""

import subprocess
import sys

import pytest

from tests.conftest import ROOT


def ended(code: str) -> subprocess.CompletedProcess:
    """A process that runs a stage whose `main` is this code."""
    program = f"import stages.workspace as w\ndef main():\n    {code}\nw.run_stage(main)"
    return subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("raise w.UserError('x is wrong')", ["x is wrong"]),
        (
            "raise OSError(28, 'No space left on device', 'a.csv')",
            ["a.csv: No space left on device", "free some space"],
        ),
        ("raise OSError(28, 'No space left on device')", ["a file below /", "No space left on device"]),
        ("w.Path('/proc/none').mkdir()", ["/proc/none: No such file"]),
        ("w.Path('README.md/x').mkdir()", ["README.md/x: Not a directory", "move the file"]),
        ("w.Path('README.md').mkdir()", ["README.md: File exists", "move the file"]),
        ("w.Path('tests').read_text()", ["tests: Is a directory", "move the folder"]),
        (
            "raise PermissionError(13, 'Permission denied', 'params.yaml')",
            ["params.yaml: Permission denied", "right to it"],
        ),
        ("raise OSError('several\\n  lines')", ["several lines"]),
        ("raise ValueError('I/O error: No space left on device (os error 28)')", ["No space left on device"]),
    ],
)
def test_what_a_user_can_mend_is_one_sentence(code, words):
    result = ended(code)
    assert result.returncode == 1 and result.stdout == ""
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
    assert all(word in result.stderr for word in words), result.stderr


def test_ctrl_c_is_one_sentence_and_ends_the_process_by_that_signal():
    result = ended("import signal; signal.raise_signal(signal.SIGINT)")
    assert result.returncode == -2  # so that a shell, make and DVC know
    assert result.stderr == "error: interrupted; the same command goes on where this one stopped.\n"


def test_a_mistake_of_this_project_keeps_its_traceback():
    result = ended("[][0]")
    assert result.returncode == 1 and "Traceback" in result.stderr and "IndexError" in result.stderr


def test_while_a_stage_imports_its_libraries_ctrl_c_is_a_sentence_too(tmp_path):
    (tmp_path / "pandas.py").write_text("import signal; signal.raise_signal(signal.SIGINT)")
    result = subprocess.run(
        [sys.executable, "-m", "stages.baselines"],
        cwd=ROOT,
        env={"PYTHONPATH": f"{tmp_path}"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == -2 and result.stderr.count("\n") == 1 and "interrupted" in result.stderr
