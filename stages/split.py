"""Divide the clean table into train, validation and test."""

from peftqa.params import read_params
from peftqa.records import read_records, read_table, read_test_ids, split_official, split_random, write_table
from stages.workspace import CLEAN_TABLE, PARAMS, RAW_RECORDS, RAW_TEST_IDS, SPLIT_FOLDER, run


def main() -> None:
    split, table = read_params(PARAMS).split, read_table(CLEAN_TABLE)
    if split.protocol == "official":
        # `clean` may have dropped official records, so whether an id is known is asked of the raw file.
        test_ids = read_test_ids(RAW_TEST_IDS, read_records(RAW_RECORDS))
        parts = split_official(table, test_ids, split.train, split.val, split.seed)
    else:
        parts = split_random(table, split.train, split.val, split.test, split.seed)
    for name, part in parts.items():
        write_table(part, SPLIT_FOLDER / f"{name}.csv")
    counts = (
        f"{name} {len(part)} ({', '.join(f'{label} {sum(part.label == label)}' for label in table.label.unique())})"
        for name, part in parts.items()
    )
    print(f"split: {split.protocol}, {', '.join(counts)}")


if __name__ == "__main__":
    run(main)
