"""Data that are not what they should be, by way of `dvc repro`: named, and mended by the same command."""

import hashlib
import json

import pytest

from tests.faults.drill import Copy

pytestmark = pytest.mark.drill
RECORDS, IDS = "embedded/ori_pqal.json", "embedded/test_ground_truth.json"


def replace(clone: Copy, path: str, content: bytes) -> None:
    """Change one of the two files that the experiment starts from, and what params.yaml knows it by."""
    (clone.folder / path).write_bytes(content)
    key = "data.sha256" if path == RECORDS else "data.test_ids_sha256"
    clone.set({key: hashlib.sha256(content).hexdigest()})


def changed(clone: Copy, change) -> bytes:
    records = json.loads((clone.folder / RECORDS).read_text(encoding="utf-8"))
    change(records)
    return json.dumps(records).encode()


def all_yes(records: dict) -> None:
    for record in records.values():
        record["final_decision"] = "yes"


def ten_only(records: dict) -> None:
    for pmid in list(records)[10:]:
        del records[pmid]


def first(records: dict) -> dict:
    return next(iter(records.values()))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (lambda clone: (clone.folder / RECORDS).read_bytes()[:-1000], "Invalid JSON"),
        (lambda clone: changed(clone, lambda records: first(records).pop("QUESTION")), "QUESTION: missing key"),
        (lambda clone: changed(clone, all_yes), "no usable record has the label no"),
        (lambda clone: changed(clone, ten_only), "cannot be divided into train 0.8"),
    ],
)
def test_records_that_cannot_be_used(whole, clone, content, says):
    replace(clone, RECORDS, content(clone))
    clone.refused("dvc", "repro", says=(says,))
    clone.unharmed(whole, but=("data/raw", "data/clean"))
    clone("git", "checkout", "--quiet", ".")
    clone.recovers(whole)


def test_official_ids_of_another_version(whole, clone):
    replace(clone, IDS, b'{"no such": "yes"}')
    clone.set({"split.protocol": "official"})
    clone.refused("dvc", "repro", "split", says=("test_ground_truth.json", "no such", "same version"))
    clone.unharmed(whole, but=("data/raw",))
    clone("git", "checkout", "--quiet", ".")
    clone.recovers(whole)


def test_a_changed_file_under_the_old_digest(whole, clone):
    (clone.folder / RECORDS).write_bytes(b"{}")
    clone.refused("dvc", "repro", "--force", "download", says=("ori_pqal.json could not be used", "hash"))
    clone.unharmed(whole)
    clone("git", "checkout", "--quiet", ".")
    clone.recovers(whole)


@pytest.mark.parametrize(
    ("path", "content", "stage", "says"),
    [
        ("data/clean/pubmedqa.csv", b"id,question\n1,2\n", "split", "has the columns id, question instead of"),
        ("data/split/fold-0/train.csv", b"\xff\xfe\x00", "baselines", "is damaged"),
        ("evaluation/prefix/roc.csv", None, "compare", "roc.csv is missing; run `dvc repro`"),
        ("comparison/comparison.json", b'{"variants": [', "report", "comparison.json is damaged"),
        ("metrics/prefix.json", b"<<<<<<< HEAD\n{}\n=======\n", "select", "prefix.json is damaged"),
    ],
)
def test_an_output_that_someone_has_broken(whole, clone, path, content, stage, says):
    """A stage that is run by itself must say so; `dvc repro` notices and makes the output anew."""
    file = clone.folder / path
    file.unlink()  # it may be a link into DVC's cache
    if content is not None:
        file.write_bytes(content)
    clone.refused("python", "-m", f"stages.{stage}", says=(says,))
    clone.unharmed(whole, but=(path,))
    clone.recovers(whole)
