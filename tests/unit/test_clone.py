"""The files of an experiment's clone follow those of the workspace."""

import pytest

from experiments import clone
from experiments.git import git
from peftqa.errors import UserError


@pytest.fixture
def tree_of(tmp_path):
    """Makes a tree of files in the repository tmp_path/clone, whose own files stay as they are."""
    (tmp_path / "clone").mkdir()
    git("init", "--quiet", str(tmp_path / "clone"))

    def make(**files: str) -> str:
        lines = []
        for name, content in files.items():
            blob = git("hash-object", "-w", "--stdin", cwd=tmp_path / "clone", stdin=content)
            lines.append(f"100644 blob {blob}\t{name}\n")
        return git("mktree", cwd=tmp_path / "clone", stdin="".join(lines))

    return make


def contents(folder) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir() if path.is_file()}


def test_an_update_changes_what_differs_and_leaves_the_users_files_alone(tmp_path, tree_of):
    folder = tmp_path / "clone"
    clone.update(folder, tree_of(same="1", old="1", changed="1"), ["result"])
    (folder / "mine").write_text("of the user")
    before = (folder / "same").stat().st_mtime_ns
    clone.update(folder, tree_of(same="1", new="2", changed="2"), ["result"])
    assert contents(folder) == {"same": "1", "new": "2", "changed": "2", "mine": "of the user"}
    assert (folder / "same").stat().st_mtime_ns == before
    with pytest.raises(UserError, match="mine is in the way"):
        clone.update(folder, tree_of(mine="3", changed="3"), ["result"])
    assert contents(folder)["changed"] == "2" and contents(folder)["mine"] == "of the user"


def test_an_update_after_one_that_was_killed_brings_every_file(tmp_path, tree_of, monkeypatch):
    folder = tmp_path / "clone"
    clone.update(folder, tree_of(old="1", changed="1"), ["result"])

    def killed(command: str, *arguments: str, **options: object) -> str:
        if command == "read-tree":
            (folder / "new").write_text("half")
            raise KeyboardInterrupt
        return git(command, *arguments, **options)

    tree = tree_of(new="2", changed="2")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(clone, "git", killed)
        clone.update(folder, tree, ["result"])
    clone.update(folder, tree, ["result"])
    assert contents(folder) == {"new": "2", "changed": "2"}
