"""Experiments: what they store, what they leave alone, and the states of git and DVC in which they must work."""

import os
import shutil

import pytest

from tests.faults.drill import Copy

pytestmark = pytest.mark.drill
MINE = ("make", "experiment", "NAME=mine", "SETUP=")
COMPARE = ("python", "-m", "experiments.compare", "base", "prefix")
TUNE = ("make", "tune", "ADAPTER=prefix", "TRIALS=1", "SETUP=")
# What DVC itself adds to every experiment: the tables that its plots are drawn from, and what it was called with.
BY_DVC = (".dvc/tmp/repro.dat", "comparison/")


@pytest.fixture
def elsewhere(clone, tmp_path) -> Copy:
    """The finished workspace in a folder whose name is not ASCII, its cache elsewhere, with a git of its own habits."""
    clone.folder = clone.folder.rename(tmp_path / "Größe und Maß")
    (clone.folder / ".dvc/cache").rename(tmp_path / "cache")
    clone("dvc", "cache", "dir", "--local", "../cache")
    clone("git", "config", "--global", "clone.defaultRemoteName", "upstream")
    (clone.folder / "experiments/mine.yaml").write_text("include: base\nselected: base\n")
    (clone.folder / "experiments/base.yaml").write_text("compare.confidence: 0.9\n")
    return clone


def state(clone: Copy) -> tuple[dict[str, bytes], str]:
    """What a command must leave as it was."""
    return clone.bytes(), clone("git", "status", "--porcelain")


def stored(clone: Copy, name: str) -> dict[str, str]:
    """Mode of every file in an experiment, without what DVC adds."""
    (ref,) = clone("git", "for-each-ref", "--format=%(refname)", f"refs/exps/*/*/{name}").split()
    entries = [line.split("\t") for line in clone("git", "ls-tree", "-r", "-z", ref).split("\0") if line]
    return {path: about.split()[0] for about, path in entries if not path.startswith(BY_DVC)}


def test_an_experiment_stores_what_git_tracks_and_nothing_else(elsewhere, tmp_path):
    folder, own = elsewhere.folder, elsewhere.folder / "experiments/mine/notes.txt"
    tracked = set(elsewhere("git", "ls-files").split())
    for path in ("my-secrets.env", "private/patients.csv", "metrics/notes.json", os.fsdecode(b"\xff.txt")):
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text("private")
    (tmp_path / "outside").write_text("private")
    (folder / "link").symlink_to(tmp_path / "outside")
    (folder / "new.md").write_text("new")
    elsewhere("git", "add", "link", "new.md")
    (folder / "README.md").write_text("changed")
    (folder / "CHANGELOG.md").unlink()
    before = state(elsewhere)
    # Places that git tells its hooks; in the clone they would lead git to the user's own repository.
    places = {"GIT_DIR": str(folder / ".git"), "GIT_INDEX_FILE": str(folder / ".git/index")}
    prepare = "import experiments.clone as c; c.prepare(c.Path('experiments/mine'), {})"
    elsewhere("python", "-c", prepare, **places)
    own.write_text("of a user")
    elsewhere(*MINE, **places)
    assert state(elsewhere) == before and own.read_text() == "of a user"
    found = stored(elsewhere, "mine")
    added = {"link", "new.md", "experiments/mine.yaml", "experiments/base.yaml"}
    assert set(found) == tracked - {"CHANGELOG.md"} | added and found["link"] == "120000"
    # A file that git no longer tracks goes from the clone, one that changes follows, and the user's own stay.
    elsewhere("git", "rm", "--quiet", "--cached", "new.md")
    (folder / "link").unlink()
    (folder / "link").write_text("a file now")
    elsewhere("python", "-c", prepare)
    assert not (own.parent / "new.md").exists() and (own.parent / "link").read_text() == "a file now" and own.exists()
    (folder / "notes.txt").write_text("of the repository")
    elsewhere("git", "add", "notes.txt")
    elsewhere.refused("make", "experiment", "NAME=mine", "SETUP=", says=("mine/notes.txt is in the way", "move it"))
    assert own.read_text() == "of a user"


@pytest.mark.parametrize("command", [COMPARE, TUNE], ids=["compare", "tune"])
@pytest.mark.parametrize("results", ["untracked", "staged", "modified"])
def test_results_in_any_state_are_recorded_and_stay_as_they_are(whole, elsewhere, results, command):
    """After `dvc exp apply` and `git commit -a`, metrics/ is untracked."""
    if results in ("untracked", "staged"):
        elsewhere("git", "rm", "-r", "--quiet", "--cached", "metrics")
    if results == "modified":
        shutil.move(elsewhere.folder / "metrics", elsewhere.home / "metrics")
        for path in (elsewhere.home / "metrics").iterdir():
            elsewhere("sh", "-c", 'mkdir -p metrics && echo "{}" > "$0"', f"metrics/{path.name}")
    elsewhere("git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "--quiet", "--allow-empty", "-a", "-m", "x")
    if results == "modified":
        shutil.copytree(elsewhere.home / "metrics", elsewhere.folder / "metrics", dirs_exist_ok=True)
    if results == "staged":
        elsewhere("git", "add", "metrics")
    (elsewhere.folder / "my-secrets.env").write_text("private")
    before = state(elsewhere)
    printed = elsewhere(*command)
    assert state(elsewhere) == before and "Traceback" not in printed
    assert "my-secrets.env" not in stored(elsewhere, "prefix*")
    if command == COMPARE:
        shown = elsewhere("dvc", "metrics", "diff", "base", "prefix", "--targets", "metrics/selected.json")
        assert "accuracy" in shown
        assert stored(elsewhere, "base").keys() >= {f"metrics/{name}.json" for name in ("base", "prefix", "selected")}
        assert not (elsewhere.folder / "experiments/.compare").exists()


def test_an_experiment_can_be_applied_with_nothing_missing(whole, elsewhere):
    elsewhere(*MINE)
    identity = {f"GIT_{role}_{key}": "t" for role in ("AUTHOR", "COMMITTER") for key in ("NAME", "EMAIL")}
    elsewhere("dvc", "exp", "apply", "mine", **identity)
    assert elsewhere("dvc", "status").strip() == "Data and pipelines are up to date."


@pytest.mark.parametrize("place", ["download", "subfolder", "no commit"])
def test_outside_of_a_repository_one_sentence_says_what_is_needed(clone, place):
    shutil.rmtree(clone.folder / ".git")
    if place != "download":
        clone("git", "init", "--quiet", "." if place == "no commit" else "..")
    for command in (("python", "-m", "experiments", "demo"), COMPARE):
        clone.refused(*command, says=("an experiment is a commit", "`git clone`", "`git commit`"))
    assert not (clone.folder / "experiments/demo").exists()


@pytest.mark.parametrize("code", ["module", "data", "model"])
def test_what_git_does_not_track_and_the_experiment_needs_is_named(clone, code):
    shutil.copytree(clone.folder / "embedded", clone.folder / "mine")
    content = {
        "module": "selected: base\n",
        "data": "data.source: mine/ori_pqal.json\n",
        "model": "model.name: mine/pico-t5\n",
    }
    (clone.folder / "experiments/mine.yaml").write_text(content[code])
    if code == "module":
        (clone.folder / "peftqa/extra.py").write_text("")
        select = clone.folder / "stages/select.py"
        select.write_text(f"import peftqa.extra\n{select.read_text()}")
    printed = clone(*MINE, ok=False)
    (line,) = [line for line in printed.splitlines() if line.startswith("git does not track ")]
    assert ("peftqa/extra.py" if code == "module" else "mine/") in line and "`git add`" in line
    assert "error: " in printed if code != "module" else "ModuleNotFoundError" in printed


def test_line_endings_of_windows(clone, tmp_path):
    """git keeps the bytes of files that are known by their digest."""
    clone("git", "clone", "--quiet", "--config", "core.autocrlf=true", ".", str(tmp_path / "windows"))
    for name in ("embedded/ori_pqal.json", "embedded/pico-t5/config.json", "peftqa/errors.py"):
        assert (tmp_path / "windows" / name).read_bytes() == (clone.folder / name).read_bytes()
