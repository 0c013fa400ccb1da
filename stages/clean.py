"""Make PubMedQA's records a clean table, and count what was dropped and why: python -m stages.clean"""

from peftqa.config.params import read_params
from peftqa.data.files import write_csv, write_json
from peftqa.data.records import clean, read_records, to_table
from stages import run_stage, workspace


def main() -> None:
    labels = read_params().data.labels
    table, counts = clean(to_table(read_records(workspace.RAW_RECORDS)), labels)
    write_csv(workspace.CLEAN_TABLE, table)
    write_json(workspace.CLEAN_COUNTS, counts)
    left = ", ".join(f"{label} {count}" for label, count in counts["labels"].items())
    print(
        f"clean: {counts['records']} records, dropped {counts['dropped_missing_value']} with missing values, "
        f"{counts['dropped_other_label']} with other labels, {counts['dropped_duplicate']} duplicates; "
        f"{counts['rows']} left ({left})"
    )


if __name__ == "__main__":
    run_stage(main)
