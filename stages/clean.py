"""Make PubMedQA's records a clean table, and report what was dropped and why."""

from peftqa.params import read_params
from peftqa.records import clean, read_records, to_table, write_table
from stages.workspace import CLEAN_TABLE, METRICS, PARAMS, RAW_RECORDS, run, write_json


def main() -> None:
    labels = read_params(PARAMS).data.labels
    table, report = clean(to_table(read_records(RAW_RECORDS)), labels)
    write_table(table, CLEAN_TABLE)
    write_json(METRICS / "dataset.json", report)
    counts = ", ".join(f"{label} {count}" for label, count in report["labels"].items())
    print(
        f"clean: {report['records']} records, dropped {report['dropped_missing_value']} with missing values, "
        f"{report['dropped_other_label']} with other labels, {report['dropped_duplicate']} duplicates; "
        f"{report['rows']} left ({counts})"
    )


if __name__ == "__main__":
    run(main)
