"""data/eda.ipynb: run from top to bottom, and stored: python -m tests.notebook

The second needs what the notebook says: `dvc repro split fetch_model`. What is stored is the same from run to run: no
times, no counts of executions, and no output of cells tagged remove-output, which print sentences of records.
"""

import sys
from hashlib import sha256
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from tests.conftest import ROOT

NOTEBOOK = ROOT / "data/eda.ipynb"
PRIVATE = "remove-output"


def execute(notebook: nbformat.NotebookNode, workspace: Path) -> None:
    """Run all cells, in place, as an editor does that has opened the notebook in `workspace`/data."""
    place = {"metadata": {"path": str(workspace / "data")}}
    NotebookClient(notebook, timeout=None, startup_timeout=600, record_timing=False, resources=place).execute()


def strip(notebook: nbformat.NotebookNode) -> None:
    """Take out what varies from run to run and what must not be stored, and note from which source the rest came."""
    for cell in code_cells(notebook):
        cell.execution_count = None
        if PRIVATE in cell.metadata.get("tags", []):
            cell.outputs = []
        for output in cell.outputs:
            if "execution_count" in output:
                output.execution_count = None
    notebook.metadata.language_info = {"name": "python"}
    notebook.metadata.source_sha256 = source_digest(notebook)


def code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def source_digest(notebook: nbformat.NotebookNode) -> str:
    """sha256 over the code, by which stored output is told that came from another."""
    return sha256("\0".join(cell.source for cell in code_cells(notebook)).encode()).hexdigest()


if __name__ == "__main__":
    stored = nbformat.read(NOTEBOOK, as_version=4)
    execute(stored, Path(*sys.argv[1:]).resolve())  # this repository, or another folder in which the stages ran
    strip(stored)
    nbformat.write(stored, NOTEBOOK)
