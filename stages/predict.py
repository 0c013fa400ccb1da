"""Let one run, or the frozen model, answer a fold's questions: python -m stages.predict prompt-0-42, or base-0

It writes the label probabilities of each validation and test question (.csv), and the adapter's size and the rate of
valid free answers (.json).
"""

import time

import numpy as np
import pandas as pd

from peftqa.config.params import read_params
from peftqa.data.files import read_table, write_csv, write_json
from peftqa.evaluation.calibration import fit_biases, shift
from peftqa.evaluation.predictions import prediction_table
from peftqa.model.adapters import adapter_size, load_adapter, peft_type
from peftqa.model.backbone import load_backbone, load_tokenizer, memory_explained, peak_memory_mb
from peftqa.model.prompts import encode_prompts, few_shot_examples, first_token_ids
from peftqa.model.scoring import label_probabilities, probabilities_and_answers, valid_answer_rate
from peftqa.model.task import read_task
from stages import run_stage, runs

TIMED_QUESTIONS = 50


@memory_explained()
def main() -> None:
    params = read_params()
    known = [*params.adapters, *params.evaluate.untrained]
    name, fold, seed = runs.find_run(runs.stage_key(), params, known)
    run, labels, settings = (fold, seed), params.data.labels, params.evaluate

    tokenizer = load_tokenizer(runs.BASE_MODEL)
    label_token_ids = first_token_ids(tokenizer, labels)
    asked, examples = settings.untrained.get(name), []

    def read(split: str) -> pd.DataFrame:
        table = read_table(runs.fold_table(fold, split))
        return table.assign(context="") if asked and asked.context is False else table

    tables = {split: read(split) for split in ("val", "test")}
    if asked and asked.few_shot:
        examples = few_shot_examples(
            tokenizer, read("train"), params.template, labels, asked.few_shot, asked.max_tokens, [asked.seed, fold]
        )
    encoded = encode_prompts(tokenizer, pd.concat(tables.values()), params.template, labels, examples)
    prompts = {"val": encoded[: len(tables["val"])], "test": encoded[len(tables["val"]) :]}
    model, extra_metrics = load_backbone(runs.BASE_MODEL, params.model), {}
    if name in params.adapters:
        folder = runs.run_path(runs.ADAPTERS, name, run)
        trained = read_task(folder).trainable_params  # read_task also refuses damaged weights
        extra_metrics = adapter_size(folder, trained, model)
        model = load_adapter(model, folder, allowed=[peft_type(params.adapters[name])])

    title = f"{name}, fold {fold}, seed {seed}" if name in params.adapters else f"{name}, fold {fold}"
    began, size = time.perf_counter(), settings.batch_size
    on_val = label_probabilities(model, prompts["val"], label_token_ids, size, f"{title}, val")
    on_test, answers = probabilities_and_answers(
        model, tokenizer, prompts["test"], label_token_ids, size, settings.max_new_tokens, f"{title}, test"
    )
    seconds = time.perf_counter() - began
    if asked and asked.calibrated:
        biases = fit_biases(on_val, np.array([labels.index(label) for label in tables["val"]["label"]]))
        on_val, on_test = shift(on_val, biases), shift(on_test, biases)

    rows = [
        prediction_table(split, fold, seed, tables[split], probabilities, labels)
        for split, probabilities in {"val": on_val, "test": on_test}.items()
    ]
    write_csv(runs.run_path(runs.PREDICTIONS, name, run, ".csv"), pd.concat(rows))
    extra_metrics["valid_answer_rate"] = valid_answer_rate(answers, labels)
    write_json(runs.run_path(runs.PREDICTIONS, name, run, ".json"), extra_metrics)

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
    write_json(runs.run_path(runs.RUNTIME / "predict", name, run, ".json"), runtime)
    accuracy = (rows[1]["prediction"] == rows[1]["label"]).mean()
    print(f"{title}: accuracy {accuracy:.3f} on {len(rows[1])} test questions")


def seconds_per_question(model, prompts: list, label_token_ids: list[int]) -> list[float]:
    """The seconds that each question takes alone. The first one is also asked once before, to warm up."""
    label_probabilities(model, prompts[:1], label_token_ids, batch_size=1)
    seconds = []
    for prompt in prompts:
        began = time.perf_counter()
        label_probabilities(model, [prompt], label_token_ids, batch_size=1)
        seconds.append(time.perf_counter() - began)
    return seconds


if __name__ == "__main__":
    run_stage(main)
