"""Fetch PubMedQA's records and official test ids; each must have the sha256 that params.yaml names."""

import os
from pathlib import Path

from peftqa.config.params import read_params
from peftqa.errors import UserError
from peftqa.fetch.files import fetch, is_url, shown_address, sibling
from stages import run_stage, workspace

ENVIRONMENT = "PUBMEDQA_SOURCE"
REMEDY = (
    f"set {ENVIRONMENT} to the absolute path or address of a true copy, with {workspace.RAW_TEST_IDS.name} beside it"
)


def resolve_source(override: str | None, source: str) -> str:
    """The address of the records: `override` (the environment's) if it is set, else `source` (params.yaml's).

    Raises UserError for a path that would mean another file in an experiment's folder.
    """
    if override and not is_url(override) and not Path(override).is_absolute():
        raise UserError(
            f"{ENVIRONMENT}: {override!r} is a relative path, and experiments run in other folders, from which it "
            "would mean another file; give an absolute path, or a URL"
        )
    if not override and not is_url(source):
        workspace.check_inside("data.source", source)
    return override or source


def main() -> None:
    data = read_params().data
    source = resolve_source(os.environ.get(ENVIRONMENT), data.source)
    urls = {
        workspace.RAW_RECORDS.name: source,
        workspace.RAW_TEST_IDS.name: sibling(source, workspace.RAW_TEST_IDS.name),
    }
    registry = {workspace.RAW_RECORDS.name: data.sha256, workspace.RAW_TEST_IDS.name: data.test_ids_sha256}
    fetch(workspace.RAW_RECORDS.parent, urls, registry, REMEDY)
    print(f"download: {' and '.join(urls)} from {shown_address(source)}, sha256 verified")


if __name__ == "__main__":
    run_stage(main)
