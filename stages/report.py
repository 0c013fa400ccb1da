"""PLACEHOLDER"""

from peftqa.comparison import as_text
from stages import workspace


def main():
    workspace.REPORT.mkdir(exist_ok=True)
    t = as_text(workspace.read_json(workspace.COMPARISON / "comparison.json"))
    for n in ("index.html", "report.md"):
        (workspace.REPORT / n).write_text(t)


if __name__ == "__main__":
    workspace.run(main)
