"""Let one run, or the frozen model, answer a fold's questions: python -m stages.predict prompt-0-42, or base-0

Writes each question's label probabilities on validation and test, and beside them what evaluation needs besides.
"""

import time

import numpy as np
import pandas as pd

from peftqa.adapters import adapter_size, load_adapter
from peftqa.backbone import load_backbone, load_tokenizer, memory_explained, peak_memory_mb
from peftqa.errors import UserError
from peftqa.params import Params, read_params
from peftqa.predictions import prediction_table
from peftqa.prompts import encode_prompts, few_shot_examples, first_token_ids
from peftqa.records import read_table
from peftqa.scoring import label_probabilities, probabilities_and_answers, valid_answer_rate
from stages import workspace

TIMED_QUESTIONS = 50


@memory_explained()
def main() -> None:
    params = read_params(workspace.PARAMS)
    name, fold, seed = parse_run(workspace.stage_key(), params)
    run, labels, settings = workspace.run_path(fold, seed), params.data.labels, params.evaluate

    tokenizer = load_tokenizer(workspace.BASE_MODEL)
    label_token_ids = first_token_ids(tokenizer, labels)
    tables = {split: read_table(workspace.fold_table(fold, split)) for split in ("val", "test")}
    examples = []
    if name not in params.adapters and settings.untrained[name].few_shot:
        asked = settings.untrained[name]
        train = read_table(workspace.fold_table(fold, "train"))
        examples = few_shot_examples(
            tokenizer, train, params.template, labels, asked.few_shot, asked.max_tokens, [asked.seed, fold]
        )
    encoded = encode_prompts(tokenizer, pd.concat(tables.values()), params.template, labels, examples)
    prompts = {"val": encoded[: len(tables["val"])], "test": encoded[len(tables["val"]) :]}
    model, about = load_backbone(workspace.BASE_MODEL, params.model), {}
    if name in params.adapters:
        about = adapter_size(workspace.ADAPTERS / name / run, model)
        expected = params.adapters[name].peft_config(model, tokenizer)
        model = load_adapter(model, workspace.ADAPTERS / name / run, expected)

    title, probabilities = (
        f"{name}, fold {fold}, seed {seed}" if name in params.adapters else f"{name}, fold {fold}",
        {},
    )
    began = time.perf_counter()
    probabilities["val"] = label_probabilities(
        model, prompts["val"], label_token_ids, settings.batch_size, f"{title}, val"
    )
    probabilities["test"], answers = probabilities_and_answers(
        model,
        tokenizer,
        prompts["test"],
        label_token_ids,
        settings.batch_size,
        settings.max_new_tokens,
        f"{title}, test",
    )
    seconds = time.perf_counter() - began

    path = workspace.PREDICTIONS / name / run
    rows = [prediction_table(split, fold, seed, tables[split], probabilities[split], labels) for split in tables]
    workspace.write_csv(path.with_suffix(".csv"), pd.concat(rows))
    about["valid_answer_rate"] = valid_answer_rate(answers, labels)
    workspace.write_json(path.with_suffix(".json"), about)

    milliseconds = 1000 * np.array(seconds_per_question(model, prompts["test"][:TIMED_QUESTIONS], label_token_ids))
    runtime = {
        "seconds": seconds,
        "questions": sum(map(len, prompts.values())),
        "milliseconds_per_question": {
            "median": float(np.median(milliseconds)),
            "percentile_95": float(np.percentile(milliseconds, 95)),
        },
        "peak_memory_mb": peak_memory_mb(),
    }
    workspace.write_json(workspace.RUNTIME / "predict" / name / f"{run}.json", runtime)
    accuracy = (rows[1]["prediction"] == rows[1]["label"]).mean()
    print(f"{title}: accuracy {accuracy:.3f} on {len(rows[1])} test questions")


def parse_run(key: str, params: Params) -> tuple[str, int, int]:
    """Variant, fold and seed of `prompt-0-42` or `base-0`. Raises UserError unless params.yaml lists them."""
    known = params.named_runs([*params.adapters, *params.evaluate.untrained])
    if key not in known:
        raise UserError(
            f"no run {key!r} in {workspace.PARAMS}: name ADAPTER-FOLD-SEED with an adapter of "
            f"{', '.join(params.adapters)}, or VARIANT-FOLD with a variant of "
            f"{', '.join(params.evaluate.untrained)}; folds are {params.split.folds}, seeds {params.train.seeds}."
        )
    return known[key]


def seconds_per_question(model, prompts: list, label_token_ids: list[int]) -> list[float]:
    """How long each question takes by itself, after one that warms up."""
    label_probabilities(model, prompts[:1], label_token_ids, batch_size=1)
    seconds = []
    for prompt in prompts:
        began = time.perf_counter()
        label_probabilities(model, [prompt], label_token_ids, batch_size=1)
        seconds.append(time.perf_counter() - began)
    return seconds


if __name__ == "__main__":
    workspace.run(main)
