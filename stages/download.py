"""Fetch PubMedQA's records and official test ids; each must have the sha256 that params.yaml names."""

import os

from peftqa.config.params import read_params
from peftqa.fetch.files import fetch, is_url, shown_address, sibling
from stages import run_stage, workspace

ENVIRONMENT = "PUBMEDQA_SOURCE"
REMEDY = (
    f"check the network, or set {ENVIRONMENT} to the absolute path or address of a true copy, with "
    f"{workspace.RAW_TEST_IDS.name} beside it"
)


def main() -> None:
    data, override = read_params().data, os.environ.get(ENVIRONMENT)
    source = override or data.source
    if not is_url(source):
        workspace.check_inside(ENVIRONMENT if override else "data.source", source)
    records, test_ids = workspace.RAW_RECORDS.name, workspace.RAW_TEST_IDS.name
    urls = {records: source, test_ids: sibling(source, test_ids)}
    fetch(workspace.RAW_RECORDS.parent, urls, {records: data.sha256, test_ids: data.test_ids_sha256}, REMEDY)
    print(f"download: {' and '.join(urls)} from {shown_address(source)}, sha256 verified")


if __name__ == "__main__":
    run_stage(main)
