"""An adapter's model card, as the Hub shows it: how to ask it, and its results. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from peftqa.config.params import Params
from peftqa.data.digest import is_commit
from peftqa.model.adapters import peft_type
from peftqa.model.prompts import fill_instruction
from peftqa.report import wording
from peftqa.report.markdown import table, template_environment
from peftqa.statistics.comparison import about_pairs

DATASET = "qiaojin/PubMedQA"
METRICS = {"accuracy": "accuracy", "macro_f1": "f1", "log_loss": "log_loss"}  # and what the Hub calls them


def model_card(name: str, run: tuple[int, int], params: Params, comparison: Mapping, size: Mapping, runs: int) -> str:
    """README.md of a published adapter, metadata included; equal results make equal bytes.

    run: fold and seed of the training that is published; comparison: of comparison.py; size: `adapter_size` of the
    adapter; runs: how many trainings of it there are.
    """
    model = params.model
    on_hub, synthetic = is_commit(model.revision), "synthetic" in params.data.name.lower()
    variants, mean = comparison["variants"], f"mean of {runs} trainings" if runs > 1 else "this one"
    results = [
        EvalResult(
            task_type="question-answering",
            dataset_type="synthetic" if synthetic else DATASET,
            dataset_name=params.data.name,
            dataset_split="test",
            metric_type=kind,
            metric_name=wording.METRICS[metric] + (f", {mean}" if runs > 1 else ""),
            metric_value=variants[name]["metrics"][metric],
        )
        for metric, kind in METRICS.items()
    ]
    data = ModelCardData(
        language="en",
        license="mit",
        library_name="peft",
        base_model=model.name if on_hub else None,
        datasets=None if synthetic else [DATASET],
        tags=[peft_type(params.adapters[name]).lower(), "question-answering", *(["synthetic"] if synthetic else [])],
        model_name=name,
        eval_results=results,
    )
    rows = [
        {"variant": f"{other}: {wording.describe(other, params)}{f', {mean}' if other == name else ''}"}
        | {wording.METRICS[key]: wording.estimate(row["metrics"][key], row["intervals"][key], key) for key in METRICS}
        for other, row in variants.items()
    ]
    body = (
        template_environment()
        .get_template("card.md.j2")
        .render(
            name=name,
            fold=run[0],
            seed=run[1],
            runs=runs,
            params=params,
            comparison=comparison,
            size=size,
            on_hub=on_hub,
            synthetic=synthetic,
            flan="flan-t5" in model.name,
            instruction=fill_instruction(params.template, params.data.labels),
            results=table(rows),
            about=about_pairs(comparison["pairs"]),
            pairs=[pair for pair in comparison["pairs"] if name in (pair["variant"], pair["reference"])],
            flags=[flag["text"] for flag in comparison["flags"] if flag["variant"] in (None, name)],
        )
    )
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n{body}"))
