"""Whatever a file from outside contains, it is read as it is, or refused in one line without a traceback."""

import contextlib
import copy
import json
import string
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from peftqa.config.params import Params, check_params
from peftqa.data.files import COLUMNS, read_table, write_csv
from peftqa.data.records import Record, clean, read_records, to_table
from peftqa.errors import UserError, one_line
from peftqa.evaluation.predictions import read_predictions
from tests.conftest import ROOT

PARAMS = YAML(typ="safe", pure=True).load(ROOT / "params.yaml")
LABELS = ["yes", "no"]
TEXT = st.text(max_size=30)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=8,
)
RECORD = st.fixed_dictionaries(
    {
        "QUESTION": TEXT | st.none(),
        "CONTEXTS": st.lists(TEXT, max_size=3) | st.none(),
        "LABELS": st.none(),
        "MESHES": st.lists(TEXT, max_size=2),
        "YEAR": st.none() | st.just("2007"),
        "reasoning_required_pred": st.sampled_from(["yes", "no", "maybe", None]),
        "reasoning_free_pred": st.none(),
        "final_decision": st.sampled_from(["yes", "no", "maybe", None]),
        "LONG_ANSWER": TEXT,
    }
)
ODD_RECORD = st.builds(
    lambda record, odd: record | odd, RECORD, st.dictionaries(st.sampled_from(sorted(Record.model_fields)), JSON)
)
# The same on every machine and every day; one file per try, in a folder that all tries share.
settings.register_profile("files", derandomize=True, deadline=None, max_examples=60, database=None)
settings.load_profile("files")
in_a_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@contextlib.contextmanager
def refused_in_one_line() -> Iterator[None]:
    """What happens inside, or a UserError that is shown in one line of printable characters."""
    try:
        yield
    except UserError as error:
        assert one_line(error) and one_line(error).isprintable()


def leaves(values: dict, path: tuple = ()) -> Iterator[tuple]:
    """Paths of all keys."""
    for key, value in values.items():
        yield (*path, key)
        if isinstance(value, dict):
            yield from leaves(value, (*path, key))


HEADERS = (b"", b"id,question,context,label\n", b"split,fold,seed,id,label,prediction,p_yes,p_no\n")


@in_a_folder
@given(
    header=st.sampled_from(HEADERS),
    rest=st.binary(max_size=120) | TEXT.map(str.encode) | JSON.map(lambda value: json.dumps(value).encode()),
)
@pytest.mark.parametrize("read", [read_records, read_table, lambda path: read_predictions([path], LABELS)])
def test_any_bytes_are_read_or_refused_in_one_line(tmp_path, read, header, rest):
    path = tmp_path / "file"
    path.write_bytes(header + rest)
    with refused_in_one_line():
        read(path)


@in_a_folder
@given(
    records=st.dictionaries(
        st.text(string.digits, min_size=1, max_size=8) | TEXT, ODD_RECORD | JSON, min_size=1, max_size=5
    )
)
def test_any_records_become_a_table_that_is_read_as_it_was_written_or_are_refused(tmp_path, records):
    source, target = tmp_path / "records.json", tmp_path / "table.csv"
    source.write_text(json.dumps(records), encoding="utf-8")
    with refused_in_one_line():
        table, counts = clean(to_table(read_records(source)), LABELS)
        assert counts["records"] == len(records)
        assert (
            len(table)
            == sum(counts["labels"].values())
            == len(records) - sum(count for name, count in counts.items() if name.startswith("dropped_"))
        )
        write_csv(target, table)
        again = read_table(target)
        assert again[COLUMNS].to_numpy().tolist() == table[COLUMNS].to_numpy().tolist()
        assert clean(again, LABELS)[0].equals(again)


@given(path=st.sampled_from(sorted(leaves(PARAMS))), value=JSON)
def test_any_value_under_any_key_is_a_parameter_or_refused_with_the_key(path, value):
    values = copy.deepcopy(PARAMS)
    group = values
    for key in path[:-1]:
        group = group[key]
    group[path[-1]] = value
    with refused_in_one_line():
        try:
            assert isinstance(check_params(values), Params)
        except UserError as error:
            # A name that others refer to may be missed there.
            assert path[0] in str(error) or path[0] in ("adapters", "evaluate", "selected")
            raise
