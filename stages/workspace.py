"""Paths of the pipeline's files, from the repository's root; those of one run are in stages/runs.py."""

from __future__ import annotations

from pathlib import Path

from peftqa.errors import UserError

PARAMS = Path("params.yaml")
RAW_RECORDS = Path("data/raw/ori_pqal.json")
RAW_TEST_IDS = Path("data/raw/test_ground_truth.json")
CLEAN_TABLE = Path("data/clean/pubmedqa.csv")
CLEAN_COUNTS = Path("data/clean/counts.json")
METRICS = Path("metrics")
EVALUATION = Path("evaluation")
COMPARISON = Path("comparison")
REPORT = Path("report")
RELEASE = Path("release")


def check_inside(setting: str, path: str) -> None:
    """Raise UserError if a relative `path` is outside the repository.

    An experiment runs in another folder, from which the same path would mean another file.
    """
    if not Path(path).is_absolute() and not Path(path).resolve().is_relative_to(Path.cwd()):
        raise UserError(
            f"{setting}: {path!r} is outside the repository, and experiments run in other folders, from which it would "
            "mean another file; give an absolute path, or one inside the repository"
        )
