"""Fetch the frozen model: configuration, tokenizer and safetensors, at the revision that params.yaml pins."""

import sys

from peftqa.config.params import read_params
from peftqa.fetch.hub import fetch_model
from stages import run_stage, runs, workspace


def main() -> None:
    model = read_params().model
    workspace.check_inside("model.name", model.name)
    unverified = fetch_model(model.name, model.revision, runs.BASE_MODEL)
    if unverified:
        print(
            f"warning: model.revision is empty, so a change of the files in {model.name} would not be noticed; to pin "
            f"them, set it to {unverified}",
            file=sys.stderr,
        )
    print(f"fetch_model: {model.name} at {model.revision or 'no revision'}")


if __name__ == "__main__":
    run_stage(main)
