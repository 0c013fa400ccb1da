"""The whole experiment offline: the project's own pipeline on the embedded data and model.

Usage: python -m embedded.demo, or `make demo`

Runs as the DVC experiment `demo` in a temporary folder: neither params.yaml nor anything else in the workspace is
touched but the folder demo/, which git ignores and into which the report is brought.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import dvc.api
from ruamel.yaml import YAML

from peftqa.digest import file_sha256, folder_digest
from stages.compare import as_text

FOLDER = Path("embedded")
DATA = FOLDER / "ori_pqal.json"
MODEL = FOLDER / "pico-t5"
OVERRIDES = FOLDER / "demo.yaml"
EXPERIMENT = "demo"
REPORT = Path("demo/report")
# An experiment is a commit, which needs an author; a newcomer may have no git identity yet.
IDENTITY = {
    f"GIT_{role}_{key}": value
    for role in ("AUTHOR", "COMMITTER")
    for key, value in {"NAME": "pubmedqa-peft", "EMAIL": "pubmedqa-peft@localhost"}.items()
}


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    run_experiment()
    metrics = json.loads(dvc.api.read("metrics/comparison.json", rev=EXPERIMENT))
    baselines = json.loads(dvc.api.read("metrics/baselines.json", rev=EXPERIMENT))
    shutil.rmtree(REPORT, ignore_errors=True)
    REPORT.parent.mkdir(exist_ok=True)
    dvc_command("get", "--quiet", ".", "report", "--rev", EXPERIMENT, "--out", str(REPORT))
    print(
        "\nThe embedded model on synthetic data: it shows that adapters learn and how they are compared. It says "
        "nothing about medicine or about FLAN-T5.\n"
    )
    print(as_text(metrics, baselines))
    print(
        f"\nReport:           {REPORT / 'index.html'}"
        f"\nEvery figure:     dvc metrics diff HEAD {EXPERIMENT}    (or dvc exp show --only-changed)"
        "\nReal experiment:  make repro    (downloads 2.6 MB of data and 308 MB of weights)"
    )


def run_experiment() -> None:
    """Run the pipeline with the embedded data, model and settings as parameters, under the name `demo`."""
    parameters = {
        "data.source": str(DATA),
        "data.sha256": file_sha256(DATA),
        "data.test_ids_sha256": file_sha256(DATA.with_name("test_ground_truth.json")),
        "model.name": str(MODEL),
        "model.revision": folder_digest(MODEL),
        **YAML(typ="safe").load(OVERRIDES),
    }
    # What ran before under this name is replaced. Stages that ran with the same inputs come from DVC's run cache.
    dvc_command("exp", "remove", "--quiet", EXPERIMENT, check=False, stderr=subprocess.DEVNULL)
    settings = [part for key, value in parameters.items() for part in ("--set-param", f"{key}={json.dumps(value)}")]
    dvc_command("exp", "run", "--temp", "--name", EXPERIMENT, *settings)


def dvc_command(*arguments: str, check: bool = True, **options) -> None:
    """Run DVC in this repository with this Python, without PUBMEDQA_SOURCE; ends the program where DVC fails."""
    environment = {key: value for key, value in os.environ.items() if key != "PUBMEDQA_SOURCE"} | IDENTITY
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    result = subprocess.run([sys.executable, "-m", "dvc", *arguments], env=environment, **options)
    if check and result.returncode:
        sys.exit(f"error: `dvc {' '.join(arguments[:2])}` failed; its own message stands above.")


if __name__ == "__main__":
    main()
