"""A disk that is full or may not be written, under every stage: the sentence names the disk, and no half is left."""

import shutil

import pytest

from tests.faults.drill import Copy

pytestmark = pytest.mark.drill
KB = 1024


@pytest.fixture
def workspace(whole, small_disk, tmp_path) -> Copy:
    """The finished workspace, without git's and DVC's own files, on a disk of its own."""
    ignore = shutil.ignore_patterns(".git", "cache", "tests")
    shutil.copytree(whole.folder, small_disk.folder, dirs_exist_ok=True, ignore=ignore)
    clone = Copy.of(small_disk.folder, tmp_path / "home")
    clone.python = {"PYTHONDONTWRITEBYTECODE": "1"}
    return clone


@pytest.mark.parametrize(
    ("stage", "outputs", "free"),
    [
        ("download", ["data/raw"], 256 * KB),
        ("clean", ["data/clean"], 64 * KB),
        ("split", ["data/split"], 64 * KB),
        ("fetch_model", ["models/base"], 64 * KB),
        ("baselines", ["predictions/majority", "predictions/tfidf"], 8 * KB),
        ("train prefix-0-42", ["models/adapters/prefix", "plots/training/prefix"], 0),
        ("predict prefix-0-42", ["predictions/prefix"], 8 * KB),
        ("evaluate prefix", ["evaluation/prefix", "metrics/prefix.json"], 8 * KB),
        ("compare", ["comparison", "metrics/pairs.csv"], 16 * KB),
        ("select", ["metrics/selected.json"], 0),
        ("report", ["report"], 64 * KB),
    ],
)
def test_a_disk_that_fills_up(whole, workspace, small_disk, stage, outputs, free):
    command = ("python", "-m", *f"stages.{stage}".split())
    for output in outputs:
        path = workspace.folder / output
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    small_disk.leave(free)
    workspace.refused(*command, says=("No space left on device; mend this",), **workspace.python)
    workspace.unharmed(whole)
    small_disk.remount("size=256m")
    workspace(*command, **workspace.python)
    assert workspace.bytes() == whole.bytes()


@pytest.mark.parametrize("stage", ["download", "report"])
def test_a_disk_that_may_only_be_read(whole, workspace, small_disk, stage):
    small_disk.remount("ro")
    workspace.refused("python", "-m", f"stages.{stage}", says=("Read-only file system; mend this",))
    assert workspace.bytes() == whole.bytes()
    small_disk.remount("rw")
    workspace("python", "-m", f"stages.{stage}", **workspace.python)
    assert workspace.bytes() == whole.bytes()


@pytest.mark.parametrize(
    ("path", "stage"),
    [("metrics", "select"), ("models", "fetch_model"), ("data/raw", "download")],
)
def test_a_file_where_a_folder_should_be(whole, clone, path, stage):
    shutil.rmtree(clone.folder / path)
    (clone.folder / path).write_text("in the way")
    clone.refused("python", "-m", f"stages.{stage}", says=(path.split("/")[-1], "mend this"))
    assert (clone.folder / path).read_text() == "in the way"
    (clone.folder / path).unlink()
    clone("git", "checkout", "--quiet", ".")
    clone.recovers(whole)
