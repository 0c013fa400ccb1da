"""Named sets of parameters, and what runs them: `python -m experiments NAME`, `python -m experiments.runs`."""

import os
import sys

import stages  # noqa: F401  early, so that Ctrl-C while importing prints a sentence

# git sets these for its hooks. With them, git in an experiment's clone would change the user's own repository.
for place in ("DIR", "WORK_TREE", "INDEX_FILE", "OBJECT_DIRECTORY", "COMMON_DIR", "PREFIX"):
    os.environ.pop(f"GIT_{place}", None)
# An experiment is a commit, which needs an author, and a newcomer's git may not know one yet.
for role in ("AUTHOR", "COMMITTER"):
    os.environ |= {f"GIT_{role}_NAME": "pubmedqa-peft", f"GIT_{role}_EMAIL": "pubmedqa-peft@localhost"}
# A stage's command is `python -m ...`, which has to be this Python.
os.environ["PATH"] = os.path.dirname(sys.executable) + os.pathsep + os.environ.get("PATH", "")  # noqa: PTH120
# Let threads sleep while they wait for each other. By default they take time from other runs, and two runs of two
# threads on two cores took 1.6 times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
