"""Reference rows on the test split: majority label, TF-IDF logistic regression, human annotators.

python -m stages.baselines
"""

import argparse

from peftqa.baselines import baseline_metrics
from peftqa.params import read_params
from peftqa.records import read_records, read_table
from stages import workspace


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    labels = read_params(workspace.PARAMS).data.labels
    train, test = (read_table(workspace.SPLIT_FOLDER / f"{split}.csv") for split in ("train", "test"))
    rows = baseline_metrics(train, test, read_records(workspace.RAW_RECORDS), labels)
    workspace.write_json(
        workspace.METRICS / "baselines.json",
        {
            name: {key: round(value, 6) if isinstance(value, float) else value for key, value in row.items()}
            for name, row in rows.items()
        },
    )
    for name, row in rows.items():
        print(f"{name}: accuracy {row['accuracy']:.3f}, macro-F1 {row['macro_f1']:.3f} on {row['n']} questions")


if __name__ == "__main__":
    workspace.run(main)
