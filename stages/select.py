"""Copy the metrics of the variant named by `selected`, so that `dvc metrics diff` can set variant against variant.

Usage: python -m stages.select
"""

import argparse
import json

from peftqa.params import read_params
from stages import workspace


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    selected = read_params(workspace.PARAMS).selected
    metrics = json.loads((workspace.METRICS / f"{selected}.json").read_text(encoding="utf-8"))
    workspace.write_json(workspace.METRICS / "selected.json", metrics)
    print(f"selected: {selected}")


if __name__ == "__main__":
    workspace.run(main)
