"""Answer every fold's questions without a language model: python -m stages.baselines"""

import pandas as pd

from peftqa.config.params import read_params
from peftqa.data.files import read_table, write_csv
from peftqa.evaluation.baselines import majority_probabilities, tfidf_probabilities
from peftqa.evaluation.predictions import prediction_table
from stages import run_stage, runs

BASELINES = {"majority": majority_probabilities, "tfidf": tfidf_probabilities}


def main() -> None:
    params = read_params()
    labels = params.data.labels
    for name, probabilities in BASELINES.items():
        for fold, seed in runs.runs_of(name, params):
            train = read_table(runs.fold_table(fold, "train"))
            tables = {split: read_table(runs.fold_table(fold, split)) for split in ("val", "test")}
            rows = [
                prediction_table(split, fold, seed, table, probabilities(train, table, labels), labels)
                for split, table in tables.items()
            ]
            write_csv(runs.run_path(runs.PREDICTIONS, name, (fold, seed), ".csv"), pd.concat(rows))
    print(f"baselines: {', '.join(BASELINES)} on {len(params.split.folds)} fold(s)")


if __name__ == "__main__":
    run_stage(main)
