"""Slurm for the tests of this folder, started once; each of them runs its jobs on both nodes."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.long.slurm import PACKAGES, Slurm, missing_commands


@pytest.fixture(scope="session")
def slurm() -> Iterator[Slurm]:
    if missing := missing_commands():
        pytest.skip(f"needs Slurm (Debian packages {PACKAGES}): no {', '.join(missing)}")
    # Not pytest's own folder: the path of a socket has to be short.
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    with Slurm(folder) as cluster:
        yield cluster
    shutil.rmtree(folder, ignore_errors=True)
