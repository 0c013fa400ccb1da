"""Write the report, report/index.html and report/report.md, of `evaluate.variants`: python -m stages.report"""

import subprocess

from peftqa.config.params import Params, read_params
from peftqa.data.files import atomic_write, read_csv, read_json, read_table
from peftqa.report.render import Results, render
from stages import run_stage, runs, workspace
from stages.answers import read_replicates
from stages.stale import remove_stale as remove_stale_files

CURVES = ("loss", "log_loss", "roc", "precision_recall", "reliability", "confusion", "risk_coverage")
SPLITS = ("train", "val", "test")


def main() -> None:
    params = read_params()
    remove_stale(params)
    html, markdown = render(read_results(params))
    page = workspace.REPORT / "index.html"
    for path, text in ((workspace.REPORT / "report.md", markdown), (page, html)):
        with atomic_write(path) as partial:
            partial.write_text(text, encoding="utf-8")
    print(page)


def remove_stale(params: Params) -> None:
    """Delete what dropped runs left in runtime/, which only this stage reads."""
    kept = []
    for stage, names in timed_stages(params).items():
        kept += runs.run_paths(runs.RUNTIME / stage, names, params, ".json")
    remove_stale_files(runs.RUNTIME, kept)


def read_results(params: Params) -> Results:
    """Read the results of the listed variants only. Raises UserError if a file is missing."""
    names = params.evaluate.variants
    return Results(
        params=params,
        counts=read_json(workspace.CLEAN_COUNTS),
        splits={
            fold: {split: read_table(runs.fold_table(fold, split)) for split in SPLITS} for fold in params.split.folds
        },
        comparison=read_json(workspace.COMPARISON / "comparison.json"),
        predictions={name: read_replicates(name, "test", params) for name in names},
        curves={curve: read_csv(workspace.COMPARISON / f"{curve}.csv") for curve in CURVES},
        runtime={name: read_runtime(name, params) for name in names},
        commit=commit(),
    )


def read_runtime(name: str, params: Params) -> dict[str, list[dict]]:
    """What each run of a variant took, by stage; empty for a baseline."""
    return {
        stage: [read_json(path) for path in runs.run_paths(runs.RUNTIME / stage, [name], params, ".json")]
        for stage, names in timed_stages(params).items()
        if name in names
    }


def timed_stages(params: Params) -> dict[str, list[str]]:
    """The stages that leave files in runtime/, and the variants that they run."""
    return {"train": [*params.adapters], "predict": [*params.adapters, *params.evaluate.untrained]}


def commit() -> str | None:
    """The commit of the code, or None without git or a commit."""
    try:
        result = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True)
    except FileNotFoundError:
        return None
    return result.stdout.strip() if result.returncode == 0 else None


if __name__ == "__main__":
    run_stage(main)
