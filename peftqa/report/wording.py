"""Numbers and settings in words, for the report and the model cards. This module does not import torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from peftqa.config.adapters import KVPrefix, PEFTMethod, PromptTuning
from peftqa.config.params import Params
from peftqa.statistics.comparison import p_text

MINUS, DASH, NO_BREAK = "\N{MINUS SIGN}", "\N{EN DASH}", "\N{NO-BREAK SPACE}"
BASELINES = {
    "majority": "always the label most frequent in training",
    "tfidf": "logistic regression on word counts (TF-IDF)",
}
HUMANS = {
    "human_unaided": ("human, unaided", "annotator without the abstract's conclusion"),
    "human_aided": ("human, aided", "annotator who had read the conclusion"),
}
METRICS = {
    "accuracy": "accuracy",
    "macro_f1": "macro-F1",
    "mcc": "MCC",
    "roc_auc": "ROC AUC",
    "log_loss": "log loss",
    "brier": "Brier score",
    "valid_answer_rate": "valid answers",
}
PERCENT = ("accuracy", "valid_answer_rate")
MOST_FINDINGS = 6  # lines that the findings may have before they refer to the table of pairs


def describe(name: str, params: Params) -> str:
    """What a variant is, in a few words."""
    if name in BASELINES:
        return BASELINES[name]
    match params.adapters.get(name):
        case PromptTuning(num_virtual_tokens=tokens):
            return f"prompt tuning, {tokens} tokens"
        case KVPrefix(num_virtual_tokens=tokens, target=target):
            return f"prefix tuning, {tokens} tokens ({', '.join(target)})"
        case PEFTMethod(config=config):
            rank = f" of rank {config['r']}" if "r" in config else ""
            return f"PEFT's {config['peft_type']}{rank}"
    asked = params.evaluate.untrained[name]
    parts = [f"after {asked.few_shot} training examples"] if asked.few_shot else []
    parts += ["asked without the abstract"] if asked.context is False else []
    parts += ["with one bias per label, fitted on validation"] if asked.calibrated else []
    return f"the frozen model {', '.join(parts) or 'as it is'}"


def findings(comparison: Mapping) -> list[tuple[str, str]]:
    """What was found, one line per pair: the verdict and its numbers.

    The pairs are adapters with untrained models and with each other. If no untrained model is compared, they include
    the baselines. The flags say what else a reader must know.
    """
    variants, pairs = comparison["variants"], comparison["pairs"]
    if any(variants[pair["reference"]]["kind"] == "untrained" for pair in pairs):
        pairs = [pair for pair in pairs if variants[pair["reference"]]["kind"] != "baseline"]
    lines = [(pair["verdict"], evidence(pair, comparison)) for pair in pairs[:MOST_FINDINGS]]
    if len(pairs) > len(lines):
        lines.append((f"{len(pairs) - len(lines)} more pairs", "In the table of pairs"))
    for name, variant in variants.items() if not pairs else ():
        shown = estimate(variant["metrics"]["accuracy"], variant["intervals"]["accuracy"], "accuracy")
        lines.append((f"{name} is right on {shown}", "No test compares it with another variant"))
    return lines


def evidence(pair: Mapping, comparison: Mapping) -> str:
    """`+9.1 points of accuracy (95% interval +2.0 to +16.2, p = 0.012)`."""
    between = interval(pair["test"]["interval_holm"], "accuracy", plus=True)
    numbers = f"({level(comparison)} interval {between}, {p_text(pair['test']['p_holm'], comparison['alpha'])})"
    return f"{points(pair['test']['difference'], plus=True)} of accuracy {numbers}"


def outcome(pair: Mapping, margin: float) -> str:
    """The verdict on a pair, for a table whose rows name the two."""
    if pair["difference_shown"]:
        return "more accurate" if pair["test"]["difference"] > 0 else "less accurate"
    return f"less than {100 * margin:g} points apart" if pair["equivalent"] else "undecided"


def tuning(adapters: Sequence[str], params: Params) -> str:
    """How many trials chose the adapters' settings, and whether test questions had a part in the choice."""
    tuned = {name: params.tuning[name] for name in adapters if name in params.tuning}
    if not tuned:
        return "params.yaml does not record a search for the adapters' settings"
    trials = (f"{name} {tuned[name].trials or '(by hand)' if name in tuned else 0}" for name in adapters)
    text = f"trials that chose the settings: {listed(trials)}; judged on validation questions"
    if params.split.protocol == "cross_validation":
        return f"{text}, which are other folds' test questions, so the scores here are higher than on new questions"
    if {one.protocol for one in tuned.values()} != {params.split.protocol}:
        return f"{text}, under another split than this one: test questions may have had a part in the choice"
    return f"{text}; no test question had a part in the choice"


def level(comparison: Mapping) -> str:
    """The level of confidence, `95%`."""
    return f"{100 * comparison['confidence']:g}%"


def signed(number: float, digits: int, plus: bool = False) -> str:
    """A number with a true minus sign."""
    return f"{number:{'+' if plus else '-'}z,.{digits}f}".replace("-", MINUS)


def value(number: float | None, metric: str, plus: bool = False) -> str:
    """A metric as its column shows it: shares of questions in percent, the rest with three decimals; None as a dash."""
    if number is None:
        return DASH
    if metric in PERCENT:
        return signed(100 * number, 1, plus) + ("" if plus else "%")
    return signed(number, 3, plus)


def interval(ends: Sequence[float], metric: str, plus: bool = False) -> str:
    """`28.1 to 48.3` (in percent), or `0.281 to 0.483`."""
    return " to ".join(value(end, metric, plus).removesuffix("%") for end in ends)


def estimate(number: float | None, ends: Sequence[float] | None, metric: str, plus: bool = False) -> str:
    """A metric and, in brackets, its interval if there is one. A line can break before the bracket only."""
    between = f" ({interval(ends, metric, plus).replace(' ', NO_BREAK)})" if ends and number is not None else ""
    return value(number, metric, plus) + between


def points(difference: float, plus: bool = False) -> str:
    """A difference between two accuracies."""
    return f"{signed(100 * difference, 1, plus)} points"


def listed(names: Iterable[object], word: str = "and") -> str:
    """`a`, `a and b`, `a, b and c`."""
    *first, last = map(str, names)
    return f"{', '.join(first)} {word} {last}" if first else last
