"""git, as the other modules of this folder use it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from peftqa.errors import UserError


def git(*arguments: str, cwd: Path | None = None, stdin: str = "", **variables: str) -> str:
    """Run git here, or in the clone `cwd`, with further environment variables; returns what it printed.

    Raises UserError if git is not installed, and with git's own words if it fails.
    """
    # Without these, git would look for another repository further up if the clone is damaged.
    place = ["--git-dir=.git", "--work-tree=."] if cwd else []
    text = {"encoding": "utf-8", "errors": "surrogateescape"}  # names of files are bytes
    command = ["git", *place, *arguments]
    try:
        result = subprocess.run(command, cwd=cwd, env=os.environ | variables, input=stdin, capture_output=True, **text)
    except FileNotFoundError:
        raise UserError("git is not installed; install it (on Debian: apt-get install git).") from None
    if result.returncode:
        raise UserError(f"git {arguments[0]} failed: {result.stderr.strip()}")
    return result.stdout.removesuffix("\n")


def names(*arguments: str, cwd: Path | None = None, **variables: str) -> set[str]:
    """The paths that git prints for arguments such as `ls-files`, which get the option -z."""
    return set(git(arguments[0], "-z", *arguments[1:], cwd=cwd, **variables).split("\0")) - {""}


def head() -> str:
    """This repository's last commit. Raises UserError if there is none, or if this is not the root of a repository."""
    commit = git("rev-parse", "--revs-only", "HEAD") if Path(".git").exists() else ""
    if not commit:
        raise UserError(
            "an experiment is a commit, and this folder is not the root of a git repository that has one; clone the "
            "project with `git clone`, or type `git init`, `git add .` and `git commit` here."
        )
    return commit
