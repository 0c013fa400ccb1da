"""How a program starts and ends: a sentence if the user can put it right, a traceback if it is our mistake."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="the kernel's request is Linux's")
PROGRAM = (
    "import sys; from pathlib import Path; from peftqa import errors, program\ndef main():\n    {}\nprogram.run(main)"
)


def ended(code: str, streams: str = "", **variables: str) -> subprocess.CompletedProcess:
    """A program whose `main` is this code. streams: a shell's redirections, as in `>/dev/full`."""
    command = f'"$0" -c "$1" {streams}'
    return subprocess.run(
        ["bash", "-c", f"{command}; exit ${{PIPESTATUS[0]}}", sys.executable, PROGRAM.format(code)],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", **variables},
        capture_output=True,
        text=True,
    )


def is_sentence(result: subprocess.CompletedProcess, *words: str) -> bool:
    """Whether the program ended with exit code 1 and nothing but one sentence with these words."""
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1, result.stderr
    assert all(word in result.stderr for word in words), result.stderr
    return result.returncode == 1 and result.stdout == ""


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("raise errors.UserError('x is\\x1b[31m wrong')", ["x is [31m wrong"]),
        ("raise OSError(28, 'No space left on device', 'a.csv')", ["a.csv: No space left on device; "]),
        ("raise OSError(28, 'No space left on device')", ["a file below /", "No space left on device"]),
        ("Path('/proc/none').mkdir()", ["/proc/none: No such file"]),
        ("Path('a' * 300).read_text()", ["aaa: File name too long"]),
        ("raise PermissionError(13, 'Permission denied', b'params.yaml')", ["params.yaml", "Permission denied"]),
        ("raise OSError('several\\n  lines')", ["several lines"]),
        ("raise ValueError('I/O error: No space left on device (os error 28)')", ["No space left on device"]),
    ],
)
def test_what_a_user_can_mend_is_one_sentence(code, words):
    assert is_sentence(ended(code), *words)


@pytest.mark.parametrize("variables", [{}, {"PYTHONUNBUFFERED": "1"}])
@pytest.mark.parametrize("code", ["print('x')", "print('x' * 10**6)"])
def test_output_that_cannot_be_written_is_an_error(code, variables):
    assert is_sentence(ended(code, ">/dev/full", **variables), "standard output", "No space left")
    assert is_sentence(ended(code, ">&-", **variables), "standard output is closed")
    for silent in (ended(code, ">/dev/full 2>&1", **variables), ended("sys.exit('x')", "2>&-", **variables)):
        assert silent.returncode == 1 and silent.stdout == silent.stderr == ""


def test_a_reader_that_has_enough_ends_the_program_without_a_word():
    result = ended("[print('x' * 1000) for _ in range(1000)]", "| head -1")
    assert result.returncode == 128 + 13 and result.stderr == "" and result.stdout.count("\n") == 1


@pytest.mark.parametrize(
    ("code", "streams", "printed"),
    [("print('β')", "", "\\u03b2\n"), ("print('x')", "2>&-", "x\n")],
)
def test_odd_terminals_do_not_make_a_program_fail(code, streams, printed):
    result = ended(code, streams, PYTHONIOENCODING="ascii")
    assert (result.returncode, result.stdout, result.stderr) == (0, printed, "")


def test_ctrl_c_is_one_sentence_and_ends_the_process_by_that_signal():
    result = ended("import signal; signal.raise_signal(signal.SIGINT)")
    assert result.returncode == 128 + 2  # so that a shell, make and DVC know
    assert result.stderr == "error: interrupted; type the same command to go on.\n"


def test_a_mistake_of_this_project_keeps_its_traceback():
    result = ended("[][0]")
    assert result.returncode == 1 and "Traceback" in result.stderr and "IndexError" in result.stderr


def stage(name: str, **variables: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", name], cwd=variables.pop("cwd", ROOT), env=variables, capture_output=True, text=True
    )


@pytest.mark.parametrize("module", ["stages.clean", "experiments.table"])
def test_while_a_program_imports_its_libraries_ctrl_c_is_a_sentence_too(module, tmp_path):
    (tmp_path / "pydantic.py").write_text("import signal; signal.raise_signal(signal.SIGINT)")
    result = stage(module, PYTHONPATH=str(tmp_path))
    assert result.returncode == -2 and result.stderr.count("\n") == 1 and "interrupted" in result.stderr


@pytest.mark.parametrize("name", ["random.py", "pandas/__init__.py"])
@pytest.mark.parametrize("module", ["stages.clean", "experiments.runs", "peftqa"])
def test_a_file_that_hides_a_module_of_python_or_a_library_is_named(name, module, tmp_path):
    for package in ("peftqa", "stages", "experiments"):
        (tmp_path / package).symlink_to(ROOT / package)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("raise SystemExit('it was imported')")
    assert is_sentence(stage(module, cwd=str(tmp_path)), str(tmp_path / name.split("/")[0]), "rename")


def test_a_working_folder_that_is_not_there_any_more_is_one_sentence(tmp_path):
    command = f"mkdir {tmp_path}/x; cd {tmp_path}/x; rmdir {tmp_path}/x; exec $0 -m stages.clean"
    environment = {"PYTHONPATH": str(ROOT)}
    result = subprocess.run(["bash", "-c", command, sys.executable], env=environment, capture_output=True, text=True)
    assert is_sentence(result, "working folder")


def test_python_without_docstrings_is_refused():
    assert is_sentence(stage("stages.clean", PYTHONOPTIMIZE="2"), "PYTHONOPTIMIZE")


ORPHAN = """
import os, sys, time
parent = os.getpid()
if os.fork():
    os._exit(0)
os.setsid()
while os.getppid() == parent:
    time.sleep(0.01)
os.execv(sys.executable, [sys.executable, "-m", "stages.clean"])
"""


def test_a_stage_whose_dvc_has_ended_already_does_nothing():
    process = [sys.executable, "-c", ORPHAN]
    result = subprocess.run(process, cwd=ROOT, env={"DVC_STAGE": "clean"}, stderr=subprocess.PIPE, text=True)
    assert result.stderr == "error: the DVC that started this stage has ended.\n"


@LINUX
def test_a_stage_ends_with_the_dvc_that_started_it_from_its_first_import_on(tmp_path):
    pid = tmp_path / "pid"
    (tmp_path / "pandas.py").write_text(
        f"import os, time; from pathlib import Path; Path({str(pid)!r}).write_text(f'{{os.getpid()}}.'); time.sleep(60)"
    )
    parent = "import subprocess, sys; subprocess.run([sys.executable, '-m', 'stages.baselines'])"
    environment = {"DVC_STAGE": "baselines", "PYTHONPATH": str(tmp_path)}
    process = subprocess.Popen([sys.executable, "-c", parent], cwd=ROOT, env=environment)
    deadline = time.monotonic() + 30
    while not (pid.exists() and pid.read_text().endswith(".")) and time.monotonic() < deadline:
        time.sleep(0.02)
    child = Path("/proc", pid.read_text()[:-1])
    assert running(child)
    process.kill()
    process.wait()
    while running(child) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not running(child)


def running(process: Path) -> bool:
    """Whether a process is there and not a zombie: one waits for its parent, which the test does not choose."""
    try:
        return (process / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
