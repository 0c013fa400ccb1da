"""Where files lie in the repository, and how a stage starts and ends. Every stage runs in the repository's root."""

import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path

from peftqa.errors import UserError

PARAMS = Path("params.yaml")
RAW_RECORDS = Path("data/raw/ori_pqal.json")
RAW_TEST_IDS = Path("data/raw/test_ground_truth.json")
CLEAN_TABLE = Path("data/clean/pubmedqa.csv")
SPLIT_FOLDER = Path("data/split")
BASE_MODEL = Path("models/base")
ADAPTERS = Path("models/adapters")
CHECKPOINTS = Path(".checkpoints")
METRICS = Path("metrics")
PREDICTIONS = Path("predictions")
PLOTS = Path("plots")
REPORT = Path("report")
RUNTIME = Path("runtime")


def run(main: Callable[[], None]) -> None:
    """Run a stage. A UserError becomes one sentence on standard error and exit status 1, without a traceback."""
    logging.basicConfig(format="%(message)s", stream=sys.stdout)
    logging.getLogger("peftqa").setLevel(logging.INFO)
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")


def write_json(path: Path, data: object) -> None:
    """Write `data` as indented JSON, floats as they are, creating the folder where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
