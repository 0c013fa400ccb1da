"""What a reader follows or types: links lead somewhere, and make has the targets."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT

LISTED = subprocess.run(
    ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"], cwd=ROOT, capture_output=True, text=True
)
PAGES = [ROOT / name for name in LISTED.stdout.split() if (ROOT / name).exists()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_to_files_lead_to_files(page: Path):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if not re.match(r"https?:|#", link):
            assert (page.parent / link.partition("#")[0]).exists(), link


def test_every_make_command_that_is_shown_has_its_target():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    shown = {page: set(re.findall(r"(?:`|^)make ([a-z]+)", page.read_text(), re.MULTILINE)) for page in PAGES}
    assert {"demo", "repro", "study", "test"} <= shown[ROOT / "README.md"]
    for page, commands in shown.items():
        assert commands <= targets, page
