"""Where the files of the pipeline are that are not of one run (those: stages/runs.py), from the repository's root."""

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
    """Raise UserError where a relative `path` leads out of the repository.

    An experiment runs in another folder, where the same path would mean another file.
    """
    if not Path(path).is_absolute() and not Path(path).resolve().is_relative_to(Path.cwd()):
        raise UserError(
            f"{setting}: {path!r} leads out of the repository, and experiments run in a folder of their own, where it "
            "leads elsewhere; give an absolute path, or one inside the repository"
        )
