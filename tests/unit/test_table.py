"""The table of experiments, made of what `dvc exp show --json` prints."""

from experiments.table import as_text, rows

BEFORE = {"train": {"epochs": 3}, "adapters": {"prefix": {"learning_rate": 0.01}, "prompt": {"learning_rate": 0.3}}}
PREFIX = {"n": 89, "accuracy": 0.7, "val_log_loss": 0.6}
PROMPT = {"n": 89, "accuracy": 0.65, "val_log_loss": 0.65}


def data(params: dict, **metrics: dict) -> dict:
    files = {f"metrics/{name}.json": {"data": numbers} for name, numbers in metrics.items()}
    return {"params": {"params.yaml": {"data": params}}, "metrics": files}


def experiment(name: str, params: dict, **metrics: dict) -> dict:
    return {"name": name, "revs": [{"data": data(params, **metrics)}]}


def shown(*experiments: dict) -> list[dict]:
    base = data(BEFORE, prefix=PREFIX, prompt=PROMPT, base={"accuracy": 0.4}, selected=PREFIX)
    return [
        {"rev": "workspace", "name": None, "data": base, "experiments": None},
        {"rev": "0" * 40, "name": "main", "data": base, "experiments": list(experiments) or None},
    ]


def changed(**adapters: dict) -> dict:
    return BEFORE | {"adapters": BEFORE["adapters"] | adapters}


def test_an_experiment_has_a_row_for_each_adapter_that_it_changed_with_the_changes_that_concern_it():
    faster, better = {"learning_rate": 0.0204301}, PREFIX | {"val_log_loss": 0.5, "accuracy_sd": 0.023}
    one = experiment("one", changed(prefix=faster), prefix=better, prompt=PROMPT, selected=better)
    other = {"accuracy": 0.9, "val_log_loss": 0.4}
    both = experiment("both", changed(prefix=faster) | {"train": {"epochs": 9}}, prefix=better, prompt=other)
    empty = experiment("empty", changed())
    nothing = {"rev": "2" * 40, "name": None, "data": None, "experiments": None}
    found = {(row["experiment"], row["adapter"]): row for row in rows([*shown(one, both, empty), nothing])}
    assert set(found) == {
        *(("main", "prefix"), ("main", "prompt")),
        *(("one", "prefix"), ("both", "prefix"), ("both", "prompt")),
    }
    assert found["one", "prefix"]["changed"] == "learning_rate=0.0204"
    assert found["both", "prefix"]["changed"] == "learning_rate=0.0204 train.epochs=9"
    assert found["both", "prompt"]["changed"] == "train.epochs=9"

    lines = as_text(list(found.values())).splitlines()
    assert [line.split()[:2] for line in lines[1:3]] == [["both", "prompt"], ["one", "prefix"]]
    assert lines[2].split()[2:] == ["0.5000", "0.7000", "0.0230", "learning_rate=0.0204"]


def test_the_variants_that_make_compare_records_have_no_row():
    """Their adapters' numbers differ from the commit's if the last results are not committed."""
    recorded = [
        experiment(name, BEFORE | {"selected": name}, prefix=PREFIX | {"accuracy": 0.72}) for name in ("base", "prefix")
    ]
    assert {row["experiment"] for row in rows(shown(*recorded))} == {"main"}


def test_no_line_is_longer_than_120():
    many = {f"setting_{i}": "x" * 20 for i in range(9)}
    trial = experiment("a-long-name-of-an-experiment", changed(prefix=many), prefix={"val_log_loss": 0.5})
    first = as_text(list(rows(shown(trial)))).splitlines()[1]
    assert first.startswith("a-long-name") and len(first) == 120 and "setting_1=x" in first and first.endswith("…")
