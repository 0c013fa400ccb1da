"""Evaluate one variant on validation and test questions: base, fewshot, or an adapter with all its seeds.

Usage: python -m stages.evaluate prompt
"""

import argparse
import time

import numpy as np
import pandas as pd

from peftqa import metrics
from peftqa.adapters import adapter_size, load_adapters
from peftqa.backbone import load_backbone, load_tokenizer, peak_memory_mb
from peftqa.errors import UserError
from peftqa.params import Params, read_params
from peftqa.predictions import SplitPredictions, leaderboard, on_split, prediction_table
from peftqa.records import read_table
from peftqa.scoring import label_probabilities, probabilities_and_answers, valid_answer_rate
from peftqa.template import encode_prompts, label_words, solved_examples
from stages import workspace

SPLITS = ("val", "test")
TIMED_QUESTIONS = 100
UNTRAINED_SEED = 0  # what the seed column holds for a variant without training


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("variant", help="a key of `evaluate.variants` in params.yaml")
    variant = parser.parse_args().variant
    params = read_params(workspace.PARAMS)
    if variant not in params.evaluate.variants:
        known = ", ".join(params.evaluate.variants)
        raise UserError(f"no variant {variant!r} under evaluate.variants in {workspace.PARAMS}; there are: {known}.")

    tokenizer = load_tokenizer(workspace.BASE_MODEL)
    words = label_words(tokenizer, params.data.labels)
    tables = {split: read_table(workspace.SPLIT_FOLDER / f"{split}.csv") for split in SPLITS}
    prompts = encode_variant(variant, tokenizer, tables, params)
    model = load_backbone(workspace.BASE_MODEL, params.model)
    sizes, seeds = {}, [UNTRAINED_SEED]
    if variant in params.adapters:
        seeds = params.train.seeds
        folders = {str(seed): workspace.ADAPTERS / variant / f"seed-{seed}" for seed in seeds}
        sizes = adapter_size(folders[str(seeds[0])], model)
        model = load_adapters(model, folders)

    rows, valid = [], {}
    began = time.perf_counter()
    for seed in seeds:
        if variant in params.adapters:
            model.set_adapter(str(seed))
        title = f"{variant}, seed {seed}" if variant in params.adapters else variant
        batch_size, longest = params.evaluate.batch_size, params.evaluate.max_new_tokens
        scores = {"val": label_probabilities(model, prompts["val"], words, batch_size, f"{title}, val")}
        scores["test"], answers = probabilities_and_answers(
            model, tokenizer, prompts["test"], words, batch_size, longest, f"{title}, test"
        )
        for split, table in tables.items():
            rows.append(prediction_table(split, seed, table["id"], table["label"], scores[split], params.data.labels))
        valid[seed] = valid_answer_rate(answers, params.data.labels)
    seconds = time.perf_counter() - began

    summary = write_results(variant, pd.concat(rows, ignore_index=True), valid, sizes, params)
    milliseconds = 1000 * np.array(seconds_per_question(model, prompts["test"][:TIMED_QUESTIONS], words))
    runtime = {
        **{name: sizes[name] for name in ("trainable_params", "adapter_bytes") if name in sizes},
        "seconds": seconds,
        "milliseconds_per_question": {
            "median": float(np.median(milliseconds)),
            "percentile_95": float(np.percentile(milliseconds, 95)),
        },
        "peak_memory_mb": peak_memory_mb(),
    }
    workspace.write_json(workspace.RUNTIME / f"evaluate-{variant}.json", runtime)
    print(
        f"{variant}: test accuracy {summary['accuracy']:.3f}, macro-F1 {summary['macro_f1']:.3f}, log loss "
        f"{summary['log_loss']:.3f}, valid answers {summary['valid_answer_rate']:.3f} on {summary['n']} questions"
    )


def encode_variant(variant: str, tokenizer, tables: dict[str, pd.DataFrame], params: Params) -> dict:
    """The prompts of each split; those of fewshot begin with solved training examples."""
    examples = []
    if variant == "fewshot":
        train = read_table(workspace.SPLIT_FOLDER / "train.csv")
        settings = params.evaluate
        examples = solved_examples(
            tokenizer,
            train,
            params.template,
            params.data.labels,
            settings.few_shot,
            settings.few_shot_max_tokens,
            settings.few_shot_seed,
        )
    return {
        split: encode_prompts(tokenizer, table, params.template, params.data.labels, examples)
        for split, table in tables.items()
    }


def write_results(
    variant: str, table: pd.DataFrame, valid: dict[int, float], sizes: dict, params: Params
) -> dict[str, float | int | None]:
    """Write metrics, predictions, curves and the submission file; return what metrics/VARIANT.json holds."""
    labels, bins = params.data.labels, params.evaluate.calibration_bins
    test, val = on_split(table, "test"), on_split(table, "val")
    per_seed = {
        seed: seed_metrics(test, val, position, labels, bins) | {"valid_answer_rate": valid[seed]}
        for position, seed in enumerate(test.seeds)
    }
    summary = metrics.mean_over_seeds(list(per_seed.values())) | sizes
    workspace.write_json(workspace.METRICS / f"{variant}.json", rounded(summary))
    workspace.write_json(
        workspace.METRICS / "per_seed" / f"{variant}.json", {seed: rounded(row) for seed, row in per_seed.items()}
    )
    workspace.PREDICTIONS.mkdir(exist_ok=True)
    table.to_csv(workspace.PREDICTIONS / f"{variant}.csv", index=False)
    workspace.write_json(workspace.PREDICTIONS / f"{variant}.leaderboard.json", leaderboard(table))
    folder = workspace.PLOTS / "evaluation" / variant
    folder.mkdir(parents=True, exist_ok=True)
    for name, curve in metrics.curves(test.averaged, test.truth, labels, bins).items():
        curve.insert(0, "variant", variant)
        curve.to_csv(folder / f"{name}.csv", index=False)
    return summary


def seed_metrics(
    test: SplitPredictions, val: SplitPredictions, position: int, labels: list[str], bins: int
) -> dict[str, float | int | None]:
    """One seed's figures: all of them on test, and on validation those that a search over parameters selects on."""
    on_val = metrics.classification_metrics(val.probabilities[position], val.truth, labels, bins)
    return metrics.classification_metrics(test.probabilities[position], test.truth, labels, bins) | {
        f"val_{name}": on_val[name] for name in ("accuracy", "macro_f1", "log_loss")
    }


def rounded(figures: dict[str, float | int | None]) -> dict[str, float | int | None]:
    """Six decimals are more than any test set here can tell apart."""
    return {name: round(value, 6) if isinstance(value, float) else value for name, value in figures.items()}


def seconds_per_question(model, prompts: list[list[int]], words: list[int]) -> list[float]:
    """How long each question takes by itself, after one that warms up."""
    label_probabilities(model, prompts[:1], words, batch_size=1)
    seconds = []
    for prompt in prompts:
        began = time.perf_counter()
        label_probabilities(model, [prompt], words, batch_size=1)
        seconds.append(time.perf_counter() - began)
    return seconds


if __name__ == "__main__":
    workspace.run(main)
