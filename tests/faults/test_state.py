"""The state of git, of DVC and of the machine: damaged, missing, or in the hands of another process."""

import re
import shutil
import signal
import stat
import sys
from pathlib import Path

import pytest

from tests.faults.drill import commands, send, wait_for

pytestmark = pytest.mark.drill


def test_a_damaged_cache_and_outputs_that_are_gone(whole, clone):
    for path in (clone.folder / ".dvc/cache/files").rglob("*"):
        if path.is_file():
            path.chmod(stat.S_IRUSR | stat.S_IWUSR)
            path.write_bytes(b"damaged")
    for path in ("data/split", "predictions/majority", "predictions/tfidf"):
        shutil.rmtree(clone.folder / path)
    assert "split" in clone.recovers(whole)


def test_a_lost_cache_and_a_lost_workspace(whole, clone):
    """Of everything but what git keeps, and the runs' own outputs."""
    shutil.rmtree(clone.folder / ".dvc/cache")
    for path in ("data/raw", "data/clean", "data/split", "models/base", "evaluation", "comparison", "report"):
        shutil.rmtree(clone.folder / path)
    assert {"download", "clean", "split", "fetch_model", "compare"} <= set(clone.recovers(whole))


def test_a_lock_of_dvcs_that_a_killed_process_left(whole, clone):
    shutil.rmtree(clone.folder / "data/clean")
    process = clone.start("dvc", "repro", "--force", "split")
    wait_for(lambda: any("stages.split" in command for command in commands(process.pid).values()), process)
    send(process, signal.SIGKILL, None)
    process.communicate()
    clone.recovers(whole)


def test_a_killed_comparison_is_cleared_by_the_next(whole, clone):
    process = clone.start("make", "compare", "SETUP=")
    wait_for(lambda: any("stages.select" in command for command in commands(process.pid).values()), process)
    send(process, signal.SIGKILL, None)
    process.communicate()
    left = clone.folder / "experiments/.compare"
    assert left.exists()
    clone.unharmed(whole)
    clone("python", "-m", "experiments.compare", "base")
    assert not left.exists()
    clone.recovers(whole)


TRAIN = re.compile(r"^  train:\n(    .*\n|\n)*", re.MULTILINE)


@pytest.mark.parametrize(
    ("path", "change", "says"),
    [
        ("dvc.lock", lambda text: f"<<<<<<< HEAD\n{text}=======\n>>>>>>> theirs\n", "possible merge conflicts"),
        (".dvc/config", lambda text: '[cache]\n    type = "teleport"\n', "teleport"),
        (".dvc", None, "not inside of a DVC repository"),
        ("dvc.yaml", lambda text: text.replace("stages:", "stages: ["), "dvc.yaml"),
        ("dvc.yaml", lambda text: TRAIN.sub("", text), "train"),
    ],
)
def test_whatever_stops_dvc_is_said(whole, clone, path, change, says):
    path = clone.folder / path
    path.write_text(change(path.read_text())) if change else shutil.rmtree(path)
    for command in (("make", "runs", "SETUP="), ("make", "demo", "SETUP=")):
        process = clone.start(*command)
        printed, _ = process.communicate()
        assert process.returncode and says in printed and "Traceback" not in printed, printed
    assert clone.bytes() == whole.bytes()


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("train.seeds", 43, "train.seeds: must be a list, such as [43], not 43"),
        ("split.folds", 0, "split.folds: must be a list, such as [0], not 0"),
        ("adapters", None, "adapters: must be a group of keys"),
    ],
)
def test_one_value_where_a_list_is_expected(clone, key, value, says):
    """DVC's own words are "unexpected error - 'Value' object is not iterable"."""
    clone.set({key: value})
    for command in ("repro", "runs"):
        clone.refused("make", command, "SETUP=", says=(says,))


def test_without_git(whole, clone):
    """A program of this project that needs git says so; a stage does not need it."""
    path = {"PATH": str(Path(sys.executable).parent)}
    clone("python", "-m", "stages.report", **path)
    clone.refused("python", "-m", "experiments", "demo", says=("git is not installed", "install it"), **path)
    assert clone.bytes() == whole.bytes()


def test_a_compiler_that_hangs_is_started_once_and_the_stage_ends(whole, clone, tmp_path):
    compiler = tmp_path / "c++"
    compiler.write_text("#!/bin/sh\necho x >> $0.log\nexec sleep 600\n")
    compiler.chmod(0o755)
    clone("dvc", "repro", "--force", "--single-item", "predict@prefix-0-42", CXX=str(compiler))
    assert (tmp_path / "c++.log").read_text() == "x\n"
    clone("dvc", "repro", "--force", "--single-item", "predict@prefix-0-42")
    clone.recovers(whole)
