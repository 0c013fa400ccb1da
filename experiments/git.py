"""git, as the other modules of this folder use it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable
from pathlib import Path

from peftqa.errors import UserError

# An experiment is a commit, which needs an author, and a newcomer's git may not know one yet.
IDENTITY = {
    f"GIT_{role}_{key}": value
    for role in ("AUTHOR", "COMMITTER")
    for key, value in {"NAME": "pubmedqa-peft", "EMAIL": "pubmedqa-peft@localhost"}.items()
}
# git sets these for its hooks. With them, git in an experiment's clone would change the user's own repository.
PLACES = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR", "GIT_PREFIX")


def git(*arguments: str, cwd: Path | None = None, paths: Iterable[str] = ()) -> str:
    """Run git here, or in the clone `cwd`; returns what it printed. paths: what it reads if it has -z --stdin.

    Raises UserError if git is not installed, and with git's own words if it fails.
    """
    # Without these, git would look for another repository further up if the clone is damaged.
    place = ["--git-dir=.git", "--work-tree=."] if cwd else []
    result = _run(*place, *arguments, cwd=cwd, text="".join(f"{path}\0" for path in paths))
    if result.returncode:
        raise UserError(f"git {arguments[0]} failed: {result.stderr.strip()}")
    return result.stdout.removesuffix("\n")


def names(*arguments: str, cwd: Path | None = None) -> set[str]:
    """The paths that git prints for arguments such as `ls-files`, which get the option -z."""
    return set(git(*arguments, "-z", cwd=cwd).split("\0")) - {""}


def git_accepts(ref: str) -> bool:
    """Whether git accepts the name of a reference."""
    return _run("check-ref-format", ref).returncode == 0


def head() -> str:
    """This repository's last commit. Raises UserError if there is none, or if this is not the root of a repository."""
    if not Path(".git").exists():
        raise UserError(
            "this folder is not the root of a git repository, and an experiment is a commit; clone the project with "
            "`git clone`, or type `git init`, `git add .` and `git commit` here."
        )
    if _run("rev-parse", "--verify", "--quiet", "HEAD").returncode == 1:
        raise UserError("this repository lacks a first commit, and an experiment needs one; type `git commit` first.")
    return git("rev-parse", "HEAD")


def _run(*arguments: str, cwd: Path | None = None, text: str = "") -> subprocess.CompletedProcess:
    environment = {key: value for key, value in (os.environ | IDENTITY).items() if key not in PLACES}
    try:
        return subprocess.run(
            ["git", *arguments],
            cwd=cwd,
            env=environment,
            input=text,
            capture_output=True,
            encoding="utf-8",
            errors="surrogateescape",  # names of files are bytes
        )
    except FileNotFoundError:
        raise UserError("git is not installed; install it (on Debian: apt-get install git).") from None
