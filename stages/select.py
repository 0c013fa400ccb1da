"""Copy the metrics of the variant named by `selected`: python -m stages.select

So that `dvc metrics diff` can set variant against variant.
"""

from peftqa.config.params import read_params
from stages import workspace


def main() -> None:
    selected = read_params().selected
    workspace.write_json(
        workspace.METRICS / "selected.json", workspace.read_json(workspace.METRICS / f"{selected}.json")
    )
    print(f"selected: {selected}")


if __name__ == "__main__":
    workspace.run_stage(main)
