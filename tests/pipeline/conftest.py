"""A clone in which everything has run, for all tests of a file."""

import pytest

from tests.clone import Clone


@pytest.fixture(scope="session")
def finished(new_clone) -> Clone:
    """A clone in which the whole pipeline has run, by the command that the README gives, and that is committed."""
    clone = new_clone("finished")
    clone.output = clone("dvc", "repro")
    clone.commit("First run")
    return clone
