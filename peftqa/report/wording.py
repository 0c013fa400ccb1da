"""Numbers and settings in words, for the report. This module does not import torch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from peftqa.config.adapters import AdapterSettings, KVPrefix, PEFTMethod, PromptTuning
from peftqa.config.params import Params
from peftqa.statistics.comparison import about_pairs, p_text

MINUS, DASH = "\N{MINUS SIGN}", "\N{EN DASH}"
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
HEADINGS = METRICS | {"ece": "calibration error"}
EXPLAINED = {
    "accuracy": "share of questions answered right",
    "macro-F1": "mean over the labels of F1, which combines how many of a label's questions are found and how many of "
    "its answers are right; low if a rare label is neglected",
    "MCC": "correlation of answers and labels: 1 is always right, 0 is chance; undefined if all "
    "questions have one label",
    "ROC AUC": "chance that a question with a label gets a higher probability of it than a question without: 0.5 is "
    "guessing",
    "log loss": "mean negative logarithm of the right label's probability, in nats: 0 is sure and right, more is worse",
    "Brier score": "squared error of the probabilities: 0 is sure and right, 2 is sure and wrong",
    "valid answers": "share of the model's free answers that are one of the labels; all else on this page comes from "
    "the labels' probabilities",
}
PERCENT = ("accuracy", "valid_answer_rate")
LOWER_IS_BETTER = ("log_loss", "brier", "ece")
T_TESTS = (
    "two t tests of the mean difference, with Satterthwaite's degrees of freedom: one over seeds (luck of the "
    "questions, and of the seeds of each variant that has several) and one over folds (luck of the folds, and of the "
    "questions if all folds ask the same). The larger p and the wider interval count"
)
MCNEMAR = (
    "exact McNemar test on the questions that only one of the two gets right, for single trainings and if nothing "
    "varies between runs; its interval is Tango's score interval"
)
PEFT_METHODS = {
    "LORA": "LoRA",
    "IA3": "IA3",
    "P_TUNING": "P-tuning",
    "PREFIX_TUNING": "PEFT's prefix tuning",
    "VERA": "VeRA",
}
DECIDED = {"over_seeds": "over seeds", "over_folds": "over folds", "mcnemar": "exact McNemar"}
MOST_FINDINGS = 6  # lines that the findings may have before they refer to the table of pairs


def adapter(settings: AdapterSettings) -> str:
    """What an adapter is, in a few words."""
    match settings:
        case PromptTuning():
            return f"prompt tuning, {settings.num_virtual_tokens} tokens"
        case KVPrefix():
            return f"prefix tuning, {settings.num_virtual_tokens} tokens ({', '.join(settings.target)})"
        case PEFTMethod():
            sizes = {"r": "of rank {}", "num_virtual_tokens": "with {} tokens"}
            kind, given = settings.config["peft_type"], [name for name in sizes if name in settings.config]
            size = "".join(f" {sizes[name].format(settings.config[name])}" for name in given)
            return PEFT_METHODS.get(kind, kind) + size


def describe(name: str, params: Params) -> str:
    """What a variant is, in a few words."""
    if name in BASELINES:
        return BASELINES[name]
    if name in params.adapters:
        return adapter(params.adapters[name])
    asked = params.evaluate.untrained[name]
    parts = [f"after {asked.few_shot} training examples"] if asked.few_shot else []
    parts += ["asked without the abstract"] if asked.context is False else []
    parts += ["with one bias per label, fitted on validation"] if asked.calibrated else []
    return f"the frozen model {', '.join(parts) or 'as it is'}"


def opening(comparison: Mapping, data_name: str) -> str:
    """The line above the findings: the questions, the trainings, and what the tests are about."""
    runs = {len(variant["epochs"]) for variant in comparison["variants"].values() if variant["epochs"]}
    trainings = ""
    if runs:
        (count,) = runs
        trainings = ", one training per adapter" if count == 1 else f", means over {count} trainings per adapter"
    about = about_pairs(comparison["pairs"])
    return f"On {comparison['n']} test questions of {data_name}{trainings}{f'. {about}' if about else ''}:"


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
        lines.append((f"{len(pairs) - len(lines)} more pairs", "in the table of pairs"))
    for name, variant in variants.items() if not pairs else ():
        claim = f"{name} is right on {value(variant['metrics']['accuracy'], 'accuracy')}"
        between = interval(variant["intervals"]["accuracy"], "accuracy")
        lines.append((claim, f"{level(comparison)} interval {between}; no test compares it with another variant"))
    return lines


def evidence(pair: Mapping, comparison: Mapping) -> str:
    """`+9.1 points of accuracy (95% interval +2.0 to +16.2, p = 0.012)`."""
    between = interval(pair["test"]["interval_holm"], "accuracy", plus=True)
    numbers = f"({level(comparison)} interval {between}, {p_text(pair['test']['p_holm'], comparison['alpha'])})"
    return f"{points(pair['test']['difference'])} of accuracy {numbers}"


def outcome(pair: Mapping, margin: float) -> str:
    """The verdict on a pair, for a table whose rows name the two."""
    if pair["difference_shown"]:
        return "more accurate" if pair["test"]["difference"] > 0 else "less accurate"
    return f"less than {100 * margin:g} points apart" if pair["equivalent"] else "undecided"


def references(names: Iterable[str], params: Params) -> list[str]:
    """What the reference rows (`calibrated: true` and `context: false`) show, in two or three sentences each."""
    asked = {name: params.evaluate.untrained[name] for name in names if name in params.evaluate.untrained}
    calibrated = (
        "{0} shows what can be gained without training, by changing only how often each label is given. An adapter "
        "that is not more accurate may have learned only that. The figures of {0} on validation are too good, because "
        "it is fitted on these questions."
    )
    question_only = (
        "{} shows what can be answered without reading the abstract. It has an interval and no test, so that the other "
        "tests are not corrected for one more."
    )
    lines = [calibrated.format(name) for name in asked if asked[name].calibrated]
    return lines + [question_only.format(name) for name in asked if asked[name].context is False]


def standard_errors(pair: Mapping) -> list[str]:
    """The pair's standard errors over questions, seeds and folds, in points; a dash for what is not repeated."""
    return [signed(100 * error, 1) if error else DASH for error in pair["test"]["standard_errors"].values()]


def training_budget(epochs: int) -> str:
    """What a comparison after this many epochs says, and what it does not say."""
    count = "one epoch" if epochs == 1 else f"at most {epochs} epochs"
    return (
        f"This compares how far each method has come after {count}, at the learning rates given. It does not say which "
        "would be better after more training: if validation log loss still falls at the last epoch, the order of the "
        "methods may change."
    )


def tuning(adapters: Sequence[str], params: Params) -> str:
    """How many trials chose the adapters' settings, and whether test questions had a part in the choice."""
    tuned = {name: params.tuning[name] for name in adapters if name in params.tuning}
    if not tuned:
        return (
            "no search chose the adapters' settings. If someone chose them by hand on validation questions, it is not "
            "recorded under `tuning` in params.yaml"
        )
    trials = {name: tuned[name].trials or "unknown (by hand)" if name in tuned else 0 for name in adapters}
    text = f"trials that chose the settings: {listed(f'{name} {count}' for name, count in trials.items())}"
    if len(set(trials.values())) > 1:
        text += ", not the same number for each, which by itself can make one method look better"
    text += "; judged on validation questions"
    if params.split.protocol == "cross_validation":
        return (
            f"{text}, which are test questions of another fold, so that scores of tuned adapters are higher here than "
            "they would be on new questions"
        )
    if {one.protocol for one in tuned.values()} != {params.split.protocol}:
        return f"{text}, under another split than this one: test questions may have had a part in the choice"
    return f"{text}; no test question had a part in the choice"


def level(comparison: Mapping) -> str:
    """The level of confidence, `95%`."""
    return f"{100 * comparison['confidence']:g}%"


def signed(number: float, digits: int, plus: bool = False) -> str:
    """A number with a true minus sign; zero without a sign."""
    text = f"{number:{'+' if plus else ''},.{digits}f}"
    if float(text.replace(",", "")) == 0:
        return text.lstrip("+-")
    return text.replace("-", MINUS)


def value(number: float | None, metric: str, plus: bool = False, digits: int = 0) -> str:
    """A metric as its column shows it: shares of questions in percent, the rest with three decimals; a dash for None.

    digits: decimals beyond those.
    """
    if number is None:
        return DASH
    if metric in PERCENT:
        return signed(100 * number, 1 + digits, plus) + ("" if plus else "%")
    return signed(number, 3 + digits, plus)


def interval(ends: Sequence[float] | None, metric: str, plus: bool = False) -> str:
    """`28.1 to 48.3` (in percent), or `0.281 to 0.483`.

    If an interval does not contain zero, an end near zero gets more decimals until it differs from zero.
    """
    if ends is None:
        return DASH
    nearest = min(map(abs, ends)) if ends[0] * ends[1] > 0 else 0
    digits = 0
    while nearest and digits < 4 and not float(value(nearest, metric, digits=digits).rstrip("%")):
        digits += 1
    return " to ".join(value(end, metric, plus, digits).removesuffix("%") for end in ends)


def points(difference: float, plus: bool = True) -> str:
    """A difference between two accuracies."""
    return f"{signed(100 * difference, 1, plus)} points"


def significant(number: float) -> str:
    """A number with two significant digits, because more would be noise in times and memory: `24`, `2,400`, `0.085`."""
    if not number:
        return "0"
    number = float(f"{number:.2g}")
    return f"{number:,.{max(0, 1 - math.floor(math.log10(abs(number))))}f}"


def listed(names: Iterable[object], word: str = "and") -> str:
    """`a`, `a and b`, `a, b and c`."""
    *first, last = map(str, names)
    return f"{', '.join(first)} {word} {last}" if first else last
