"""Fetch PubMedQA's records and official test ids; each must have the sha256 that params.yaml names."""

import os
from pathlib import Path

from peftqa.download import Source, fetch, is_url, shown_address, sibling
from peftqa.errors import UserError
from peftqa.params import read_params
from stages.workspace import PARAMS, RAW_RECORDS, RAW_TEST_IDS, run

ENVIRONMENT = "PUBMEDQA_SOURCE"
REMEDY = f"set {ENVIRONMENT} to the absolute path or address of a true copy, with {RAW_TEST_IDS.name} beside it"


def resolve_source(override: str | None, source: str) -> str:
    """The address of the records: `override` (the environment's) where there is one, else `source` (params.yaml's).

    Raises UserError for a path that would lead elsewhere from the temporary folder of a DVC experiment.
    """
    if override:
        if not is_url(override) and not Path(override).is_absolute():
            raise UserError(
                f"{ENVIRONMENT}: {override!r} is a relative path, and experiments run in a temporary folder, where "
                "it leads elsewhere; give an absolute path, or a URL"
            )
        return override
    leads_out = not Path(source).is_absolute() and not Path(source).resolve().is_relative_to(Path.cwd())
    if not is_url(source) and leads_out:
        raise UserError(
            f"data.source: {source!r} leads out of the repository, and experiments run in a temporary folder, where "
            "it leads elsewhere; give an absolute path, a URL, or a path inside the repository"
        )
    return source


def main() -> None:
    data = read_params(PARAMS).data
    source = resolve_source(os.environ.get(ENVIRONMENT), data.source)
    test_ids = sibling(source, RAW_TEST_IDS.name)
    fetch([Source(source, data.sha256, RAW_RECORDS), Source(test_ids, data.test_ids_sha256, RAW_TEST_IDS)], REMEDY)
    print(f"download: {RAW_RECORDS.name} and {RAW_TEST_IDS.name} from {shown_address(source)}, sha256 verified")


if __name__ == "__main__":
    run(main)
