"""What all stages before `compare` leave behind, made up: the report's input without a model."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from peftqa.metrics import classification_metrics, curves
from peftqa.predictions import SplitPredictions, prediction_table
from peftqa.records import write_table

# Text of the data file that a careless page would take for its own.
QUESTIONS = [
    "Is <b>this</b> bold & <script>document.title = 'taken over'</script>so?",
    'Does "></li></ul><img src=x onerror=alert(1)> end the list?',
    "Is p<0.05 enough </script><!-- to end a script?",
    "Is {{ 7 * 7 }} or {% raw %} evaluated? (NaN, null & \u00a0\u2009 \u03b2\u2082-blockers, \U0001f9ea)",
]
SKILL = {"base": 0.3, "prompt": 0.5, "prefix": 3.0}
BINS = 10


def write_run(
    folder: Path,
    labels: list[str],
    seeds: list[int],
    variants: list[str],
    questions: int = 40,
    truth: str | None = None,
) -> None:
    """Write the files into `folder`. `truth`: the one label of all test questions."""
    tables = {split: question_table(split, labels, questions) for split in ("train", "val", "test")}
    if truth:
        tables["test"]["label"] = truth
    for split, table in tables.items():
        write_table(table, folder / f"data/split/{split}.csv")
    counts = {label: sum(int((table["label"] == label).sum()) for table in tables.values()) for label in labels}
    dropped = dict.fromkeys(("dropped_missing_value", "dropped_other_label", "dropped_duplicate"), 0)
    rows = 3 * questions
    write_json(folder / "metrics/dataset.json", {"records": rows, **dropped, "rows": rows, "labels": counts})
    references = ("majority", "tfidf_logistic_regression", "human_reasoning_required", "human_reasoning_free")
    baseline = {"n": questions, "accuracy": 0.625, "macro_f1": 0.384615}
    write_json(folder / "metrics/baselines.json", dict.fromkeys(references, baseline))
    for name in variants:
        write_variant(folder, name, tables, labels, [0] if name == "base" else seeds)


def question_table(split: str, labels: list[str], count: int) -> pd.DataFrame:
    first = {"train": 1000, "val": 2000, "test": 3000}[split]
    return pd.DataFrame(
        {
            "id": [str(first + i) for i in range(count)],
            "question": [QUESTIONS[i] if i < len(QUESTIONS) else f"Does treatment {i} help?" for i in range(count)],
            "context": [f"<i>Methods</i> of study {i} & its results, p<0.05." for i in range(count)],
            "label": [labels[i % len(labels)] for i in range(count)],
        }
    )


def write_variant(folder: Path, name: str, tables: dict, labels: list[str], seeds: list[int]) -> None:
    rng = np.random.default_rng(list(name.encode()))
    rows, probabilities = [], []
    for seed in seeds:
        for split in ("val", "test"):
            table = tables[split]
            logits = rng.normal(size=(len(table), len(labels)))
            skill = np.full((len(table), 1), SKILL[name])
            skill[-1] = -9  # a question that misleads every variant
            logits += skill * (table["label"].to_numpy()[:, None] == np.array(labels))
            drawn = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
            rows.append(prediction_table(split, seed, table["id"], table["label"], drawn, labels))
            if split == "test":
                probabilities.append(drawn)
    (folder / "predictions").mkdir(exist_ok=True)
    pd.concat(rows).to_csv(folder / f"predictions/{name}.csv", index=False)
    ids, truth = list(tables["test"]["id"]), list(tables["test"]["label"])
    test = SplitPredictions(ids, truth, seeds, np.stack(probabilities))
    per_seed = {
        seed: classification_metrics(test.probabilities[i], truth, labels, BINS) | {"valid_answer_rate": 0.75}
        for i, seed in enumerate(seeds)
    }
    write_json(folder / f"metrics/per_seed/{name}.json", per_seed)
    for curve, table in curves(test.averaged, truth, labels, BINS).items():
        write_csv(folder / f"plots/evaluation/{name}/{curve}.csv", table.assign(variant=name))
    cost = {"seconds": 2.5, "milliseconds_per_question": {"median": 16.7, "percentile_95": 26.4}, "peak_memory_mb": 750}
    if name != "base":
        cost |= {"trainable_params": 92160, "adapter_bytes": 369000}
        write_training(folder, name, seeds)
    write_json(folder / f"runtime/evaluate-{name}.json", cost)


def write_training(folder: Path, name: str, seeds: list[int]) -> None:
    """Curves as DVCLive writes them, and what training took."""
    for seed in seeds:
        plots = folder / f"plots/training/{name}/seed-{seed}/plots/metrics"
        series = {"epoch": [1, 2, 3], "train/loss": [1.5, 1.0, 0.8], "val/loss": [1.2, 1.1, 1.0 + seed / 1000]}
        for path, values in (series | {"val/macro_f1": [0.4, 0.5, 0.6]}).items():
            table = pd.DataFrame({"step": [5, 10, 15], path.split("/")[-1]: values})
            write_csv(plots / f"{path}.tsv", table, "\t")
    cost = {seed: {"seconds": 60.0 + seed, "epochs": 3} for seed in seeds}
    write_json(folder / f"runtime/train-{name}.json", {"examples": 40, "seeds": cost, "peak_memory_mb": 1500.5})


def write_csv(path: Path, table: pd.DataFrame, separator: str = ",") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(path, sep=separator, index=False)


def write_json(path: Path, values: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values))
