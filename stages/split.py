"""Divide the clean table into train, validation and test, for every fold of the protocol: python -m stages.split"""

from peftqa.config.params import read_params
from peftqa.data.files import read_table, write_csv
from peftqa.data.records import read_records, read_test_ids
from peftqa.data.splits import split_cross_validation, split_official, split_random
from stages import run_stage, runs, workspace


def main() -> None:
    split, table = read_params().split, read_table(workspace.CLEAN_TABLE)
    if split.protocol == "random":
        folds = [split_random(table, split.train, split.val, split.test, split.seed)]
    elif split.protocol == "cross_validation":
        folds = split_cross_validation(table, split.seed)
    else:
        # Ids are looked up in the raw file, because `clean` may have dropped official records.
        test_ids = read_test_ids(workspace.RAW_TEST_IDS, read_records(workspace.RAW_RECORDS))
        folds = split_official(table, test_ids, split.seed)
    for fold, parts in enumerate(folds):
        for name, part in parts.items():
            write_csv(runs.fold_table(fold, name), part)
    counts = ", ".join(f"{name} {len(part)}" for name, part in folds[0].items())
    print(f"split: {split.protocol}, {len(folds)} fold(s), the first with {counts}")


if __name__ == "__main__":
    run_stage(main)
