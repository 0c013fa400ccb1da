"""Made-up runs: comparisons of crafted answers, and the files that all stages before `evaluate` leave behind."""

import contextlib
import importlib
import json
import sys
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
from ruamel.yaml import YAML

from peftqa.config.params import BASELINES, Params, check_params
from peftqa.evaluation.metrics import evaluate
from peftqa.evaluation.predictions import Replicates, prediction_table
from peftqa.statistics.comparison import compare
from stages.runs import runs_of
from tests.conftest import ROOT

# Text of the data file that a careless page would take for its own.
QUESTIONS = [
    "Is <b>this</b> bold & <script>document.title = 'taken over'</script>so?",
    'Does "></li></ul><img src=x onerror=alert(1)> end the list?',
    "Is p<0.05 enough </script><!-- to end a script?",
    "Is {{ 7 * 7 }} or {% raw %} evaluated? (NaN, null & \u00a0\u2009 \u03b2\u2082-blockers, \U0001f9ea)",
]
IA3 = {"method": "peft", "config": {"peft_type": "IA3"}, "learning_rate": 0.1}
SKILL = {"base": 0.3, "calibrated": 0.4, "question_only": 0.1, "prompt": 0.5, "prefix": 3.0}
EPOCHS = 3
UNTRAINED = ("base", "calibrated", "question_only")


# ---------------------------------------------------------------------------------------------------------------------
# Comparisons of crafted answers


def crafted_params(names: Sequence[str], labels: Sequence[str], folds: int, seeds: int) -> Params:
    """params.yaml with these variants; those that are neither baselines nor in UNTRAINED are adapters."""
    values = YAML(typ="safe").load(ROOT / "params.yaml")
    values["data"]["labels"] = list(labels)
    values["split"] |= {"protocol": "cross_validation" if folds > 1 else "random", "folds": list(range(folds))}
    values["adapters"] = {name: dict(IA3) for name in names if name not in (*BASELINES, *UNTRAINED)}
    values["train"]["seeds"] = list(range(seeds))
    values["evaluate"]["variants"] = list(names)
    values["compare"]["resamples"] = 200
    values["selected"] = names[0]
    return check_params(values)


def crafted_comparison(
    truth: Sequence[str],
    answers: dict[str, list[Sequence[str]]],
    labels: Sequence[str] = ("yes", "no"),
    folds: Sequence[int] | None = None,
    kept: dict[str, list[int]] | None = None,
    validation: int = 300,
) -> dict:
    """What `compare` makes of a variant's answers, a sequence for each replicate; each is given with confidence 0.9.

    kept: the epochs that an adapter's runs kept, of EPOCHS; validation: questions of a fold.
    """
    folds = np.zeros(len(truth), int) if folds is None else np.array(folds)
    count, seeds = len(np.unique(folds)), max(map(len, answers.values()))
    params = crafted_params(list(answers), labels, count, seeds)
    test = {name: crafted_replicates(truth, given, labels, folds) for name, given in answers.items()}
    asked = np.repeat(np.unique(folds), validation)
    label = np.resize(labels, len(asked))
    evaluation = {
        name: evaluate(test[name], crafted_replicates(label, [label] * len(given), labels, asked), labels, 10, 0.8)
        for name, given in answers.items()
    }
    epochs = {
        name: [
            {"fold": fold, "seed": seed, "kept": epoch, "last": EPOCHS}
            for (fold, seed), epoch in zip(runs_of(name, params), cycle((kept or {}).get(name, [2])), strict=False)
        ]
        for name in params.adapters
    }
    comparison = compare(test, evaluation, epochs, 700, validation, params)
    return comparison | {"humans": {}}


def crafted_replicates(
    truth: Sequence[str], answers: list[Sequence[str]], labels: Sequence[str], folds: np.ndarray
) -> Replicates:
    given = np.array([[list(labels).index(answer) for answer in replicate] for replicate in answers])
    probabilities = np.full((*given.shape, len(labels)), 0.1 / (len(labels) - 1))
    np.put_along_axis(probabilities, given[:, :, None], 0.9, axis=2)
    ids = [str(i) for i in range(len(truth))]
    return Replicates(ids, list(map(str, truth)), folds, [str(seed) for seed in range(len(answers))], probabilities)


def right_where(truth: Sequence[str], right: Sequence[int | bool], labels: Sequence[str] = ("yes", "no")) -> list[str]:
    """The true label where `right` is, else another."""
    other = {label: labels[(i + 1) % len(labels)] for i, label in enumerate(labels)}
    return [label if ok else other[label] for label, ok in zip(truth, right, strict=True)]


# ---------------------------------------------------------------------------------------------------------------------
# Files


def write_run(
    folder: Path,
    labels: list[str],
    seeds: list[int],
    variants: list[str],
    folds: Sequence[int] = (0,),
    questions: int = 40,
    truth: str | None = None,
    same_test: bool = False,
) -> None:
    """Write the files into `folder`, `questions` a fold and split.

    truth: the one label of all test questions; same_test: every fold tests the same ones.
    """
    tables = {
        fold: {
            split: question_table(split, 0 if same_test and split == "test" else fold, labels, questions)
            for split in ("train", "val", "test")
        }
        for fold in folds
    }
    for fold, splits in tables.items():
        if truth:
            splits["test"]["label"] = truth
        for split, table in splits.items():
            write_csv(folder / f"data/split/fold-{fold}/{split}.csv", table)
    asked = pd.concat([splits["test"] for splits in tables.values()]).drop_duplicates("id")
    write_json(folder / "data/raw/ori_pqal.json", {row.id: record(row, i) for i, row in enumerate(asked.itertuples())})
    dropped = dict.fromkeys(("dropped_missing_value", "dropped_other_label", "dropped_duplicate"), 0)
    counts = {label: int((asked["label"] == label).sum()) for label in labels}
    write_json(
        folder / "data/clean/counts.json", {"records": len(asked), **dropped, "rows": len(asked), "labels": counts}
    )
    for name in [name for name in variants if name not in BASELINES]:
        for fold in folds:
            for seed in [0] if name in UNTRAINED else seeds:
                write_predictions(folder, name, fold, seed, tables[fold], labels)


def question_table(split: str, fold: int, labels: list[str], count: int) -> pd.DataFrame:
    first = {"train": 1000, "val": 2000, "test": 3000}[split] + 100 * fold
    hints = [labels[(i + (i == count - 1)) % len(labels)] for i in range(count)]  # the last question misleads
    return pd.DataFrame(
        {
            "id": [str(first + i) for i in range(count)],
            "question": [QUESTIONS[i] if i < len(QUESTIONS) else f"Does treatment {i} help?" for i in range(count)],
            "context": [f"<i>Methods</i> of study {i} & its result {hints[i]}, p<0.05." for i in range(count)],
            "label": [labels[i % len(labels)] for i in range(count)],
        }
    )


def record(row, position: int) -> dict:
    """One of PubMedQA's records; a person without the conclusion answers every fifth question with maybe."""
    return {
        "QUESTION": row.question,
        "CONTEXTS": [row.context],
        "LABELS": [],
        "MESHES": [],
        "YEAR": None,
        "reasoning_required_pred": row.label if position % 5 else "maybe",
        "reasoning_free_pred": row.label,
        "final_decision": row.label,
        "LONG_ANSWER": "",
    }


def write_predictions(
    folder: Path, name: str, fold: int, seed: int, tables: dict[str, pd.DataFrame], labels: list[str]
) -> None:
    """What `predict`, and for an adapter `train`, leave of one run."""
    rng, rows = np.random.default_rng([fold, seed, *name.encode()]), []
    for split in ("val", "test"):
        table = tables[split]
        skill = np.full((len(table), 1), SKILL[name])
        skill[-1] = -9  # a question that misleads every variant
        logits = rng.normal(size=(len(table), len(labels)))
        logits += skill * (table["label"].to_numpy()[:, None] == np.array(labels))
        drawn = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        rows.append(prediction_table(split, fold, seed, table, drawn, labels))
    run = f"{name}/fold-{fold}/seed-{seed}"
    write_csv(folder / f"predictions/{run}.csv", pd.concat(rows))
    size = {} if name in UNTRAINED else {"trainable_params": 92160, "trainable_percent": 0.1, "adapter_bytes": 369000}
    write_json(folder / f"predictions/{run}.json", size | {"valid_answer_rate": 0.75})
    cost = {"seconds": 2.5, "milliseconds_per_question": {"median": 16.7, "percentile_95": 26.4}, "peak_memory_mb": 751}
    write_json(folder / f"runtime/predict/{run}.json", cost)
    if name not in UNTRAINED:
        write_training(folder, run, fold, seed)


def write_training(folder: Path, run: str, fold: int, seed: int) -> None:
    """The table of epochs, of which the second is the best, and what training took."""
    luck = fold / 100 + seed % 10 / 1000
    epochs = {
        "epoch": [1, 2, 3],
        "step": [5, 10, 15],
        "loss": ["1.500", "1e0", "0.8"],
        "val_loss": [1.2, 1.1, 1.0 + luck],
        "val_log_loss": [0.7, 0.5 + luck, 0.6 + luck],
    }
    write_csv(folder / f"plots/training/{run}/epochs.csv", pd.DataFrame(epochs))
    cost = {"seconds": 61.234 + seed, "examples": 40, "epochs": EPOCHS, "peak_memory_mb": 1501.5}
    write_json(folder / f"runtime/train/{run}.json", cost)


def run_stages(folder: Path, variants: list[str], stages: Sequence[str] = ("compare", "report")) -> None:
    """What comes after `predict`, in this process, which saves the start of others."""
    baselines = ["baselines"] if set(BASELINES) & set(variants) else []
    for stage in [*baselines, *(f"evaluate {name}" for name in variants), *stages]:
        module, *arguments = stage.split()
        with contextlib.chdir(folder), mock.patch.object(sys, "argv", [module, *arguments]):
            importlib.import_module(f"stages.{module}").main()


def write_csv(path: Path, table: pd.DataFrame) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(path, index=False)


def write_json(path: Path, values: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values), encoding="utf-8")
