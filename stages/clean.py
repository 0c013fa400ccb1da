"""Make PubMedQA's records a clean table, and count what was dropped and why: python -m stages.clean"""

import sys

from peftqa.config.params import read_params
from peftqa.data.files import write_csv, write_json
from peftqa.data.records import clean, read_records, to_table, with_conclusion
from stages import run_stage, workspace


def main() -> None:
    labels = read_params().data.labels
    records = read_records(workspace.RAW_RECORDS)
    table, counts = clean(to_table(records), labels)
    given_away = with_conclusion(records, table["id"])
    counts["long_answer_in_context"] = len(given_away)
    write_csv(workspace.CLEAN_TABLE, table)
    write_json(workspace.CLEAN_COUNTS, counts)
    left = ", ".join(f"{label} {count}" for label, count in counts["labels"].items())
    print(
        f"clean: {counts['records']} records, dropped {counts['dropped_missing_value']} with missing values, "
        f"{counts['dropped_other_label']} with other labels, {counts['dropped_duplicate']} duplicates; "
        f"{counts['rows']} left ({left})"
    )
    if given_away:
        print(
            f"warning: the CONTEXTS of {len(given_away)} records, such as {given_away[0]}, repeat LONG_ANSWER, which "
            "gives the answer away; take it out of them",
            file=sys.stderr,
        )


if __name__ == "__main__":
    run_stage(main)
