"""Copy the metrics of the variant named by `selected`, for `dvc metrics diff`: python -m stages.select"""

from peftqa.config.params import read_params
from peftqa.data.files import read_json, write_json
from stages import run_stage, workspace


def main() -> None:
    selected = read_params().selected
    write_json(workspace.METRICS / "selected.json", read_json(workspace.METRICS / f"{selected}.json"))
    print(f"selected: {selected}")


if __name__ == "__main__":
    run_stage(main)
