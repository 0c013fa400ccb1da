"""What `make` installs: pinned, and by its content but for torch, of which machines get different builds."""

import re

from tests.conftest import ROOT


def pins(name: str) -> dict[str, str]:
    """Versions by normalised name, as in `Some.Name==1.0`."""
    found = re.findall(r"^([\w.-]+)==(\S+)", (ROOT / name).read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[-_.]+", "-", package).lower(): version for package, version in found}


def test_every_pin_but_torch_has_its_hashes():
    wanted = pins("requirements.txt")
    del wanted["torch"]
    assert pins("requirements.lock") == wanted, "requirements.lock is not of this requirements.txt: run `make lock`"
    blocks = re.split(r"\n(?=\w)", (ROOT / "requirements.lock").read_text(encoding="utf-8"))
    assert len(blocks) == len(wanted)
    assert all(re.search(r"--hash=sha256:[0-9a-f]{64}(\s|$)", block) for block in blocks)


def test_no_index_is_named():
    for name in ("requirements.txt", "requirements.lock", "Makefile"):
        text = (ROOT / name).read_text(encoding="utf-8")
        assert not re.search(r"index-url[ =]\S*:|--find-links|--trusted-host|--extra-index", text), name
