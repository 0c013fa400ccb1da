"""Numbers and findings in words, for the report. Imports no torch.

A sentence about a pair names the tested difference, its interval and its p-value, the last two corrected together for
the number of tests, so that an interval leaves out zero just when the difference is called shown.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from peftqa.config.adapters import AdapterSettings, KVPrefix, PEFTMethod, PromptTuning
from peftqa.config.params import Params
from peftqa.statistics.comparison import p_text
from peftqa.statistics.flags import MAJORITY

MINUS = "\N{MINUS SIGN}"
METRICS = {
    "accuracy": "accuracy",
    "macro_f1": "macro-F1",
    "mcc": "MCC",
    "roc_auc": "ROC AUC",
    "log_loss": "log loss",
    "brier": "Brier score",
    "valid_answer_rate": "valid answers",
}
EXPLAINED = {
    "accuracy": "share of questions answered right; the line under it runs from 0 to 100%",
    "macro-F1": "mean over the labels of F1, which combines how many of a label's questions are found and how many of "
    "its answers are right; low where a rare label is neglected",
    "MCC": "correlation of answers and labels: 1 is always right, 0 is no better than chance",
    "ROC AUC": "chance that a question with a label gets a higher probability of it than one without: 0.5 is a guess",
    "log loss": "how surprised the probabilities are by the right label, in nats: 0 is sure and right",
    "Brier score": "squared error of the probabilities, from 0 to 2",
    "valid answers": "free answers of the model that are one of the labels; all else comes from the labels' "
    "probabilities",
}
PERCENT = ("accuracy", "valid_answer_rate")
LOWER_IS_BETTER = ("log_loss", "brier", "ece")
TESTS = {
    "seeds_t": "t test of the mean difference over seeds: its standard error has the luck of the questions and, for "
    "each variant of several seeds, of them (Satterthwaite's degrees of freedom)",
    "folds_t": "paired t test over the folds' differences",
    "mcnemar": "exact McNemar test of single trainings, on the questions that just one of two gets right; its interval "
    "is Tango's score interval",
}
PEFT_METHODS = {
    "LORA": "LoRA",
    "IA3": "IA3",
    "P_TUNING": "P-tuning",
    "PREFIX_TUNING": "PEFT's prefix tuning",
    "VERA": "VeRA",
}
MOST_FINDINGS = 6  # lines that a reader takes in


class Finding(NamedTuple):
    """One sentence in two parts, so that a page can set the evidence smaller."""

    claim: str
    evidence: str

    def __str__(self) -> str:
        return f"{self.claim} {self.evidence}"


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


def opening(comparison: Mapping, data_name: str) -> str:
    """What the findings below are about."""
    runs = {len(variant["epochs"]) for variant in comparison["variants"].values() if variant["epochs"]}
    trainings = ""
    if runs:
        (count,) = runs
        trainings = ", one training an adapter" if count == 1 else f", means over {count} trainings an adapter"
    return f"On {comparison['n']} test questions of {data_name}{trainings}:"


def findings(comparison: Mapping) -> list[Finding]:
    """The comparison in a line each; the corrected p-values alone say which differences are named as such.

    Adapters are set against untrained models and against each other. A baseline is named in such a line only where the
    adapter is not shown to beat it; without an untrained model, baselines get lines of their own.
    """
    variants = comparison["variants"]
    if not comparison["pairs"]:
        ((name, variant),) = variants.items()
        between = interval(variant["intervals"]["accuracy"], "accuracy")
        return [
            Finding(
                f"{name} is right on {value(variant['metrics']['accuracy'], 'accuracy')}",
                f"({level(comparison)} interval {between}); no other variant was evaluated to compare it with.",
            )
        ]
    pairs = comparison["pairs"]
    if any(variants[pair["reference"]]["kind"] == "untrained" for pair in pairs):
        pairs = [pair for pair in pairs if variants[pair["reference"]]["kind"] != "baseline"]
    first = sorted(pairs, key=lambda pair: not pair["difference_shown"])[:MOST_FINDINGS]
    lines = [finding(pair, comparison) for pair in pairs if pair in first]
    if len(pairs) > len(first):
        shown = sum(pair["difference_shown"] for pair in pairs if pair not in first)
        more = f"Of {len(pairs) - len(first)} more pairs {shown or 'none'} are shown to differ"
        lines.append(Finding(more, "(table of pairs)."))
    return lines


def finding(pair: Mapping, comparison: Mapping) -> Finding:
    """`prefix beats base by 9.1 points of accuracy (corrected 95% interval 2.0 to 16.2, p = 0.012).`"""
    test, scope = pair["test"], f", {pair['scope']}" if pair["scope"] else ""
    claim = claimed(pair)
    if not pair["difference_shown"]:
        return Finding(f"{claim}:", f"{points(test['difference'])} ({evidence(pair, comparison)}){scope}.")
    below = test["difference"] < 0
    behind = [] if below else [row for row in against_baselines(pair, comparison) if not beats(row)]
    if not behind:
        return Finding(claim, f"({evidence(pair, comparison, flip=below)}){scope}.")
    worse = {row["reference"] for row in behind if row["difference_shown"]}
    names = [MAJORITY if row["reference"] == "majority" else row["reference"] for row in behind]
    but = f"falls behind {listed(names)}"
    if len(worse) < len(behind):
        but = f"is not shown better than {listed(names, 'or')}"
    rest = (
        f"against {row['reference']}: {points(row['test']['difference'])}, {evidence(row, comparison)}"
        for row in behind
    )
    return Finding(
        f"{claim}, but {but}",
        f"(against {pair['reference']}: {evidence(pair, comparison)}; {'; '.join(rest)}){scope}.",
    )


def claimed(pair: Mapping) -> str:
    """What a finding says before its evidence."""
    variant, reference, difference = pair["variant"], pair["reference"], pair["test"]["difference"]
    if not pair["difference_shown"]:
        return f"No difference in accuracy was shown between {variant} and {reference}"
    verb = "beats" if beats(pair) else "falls behind"
    return f"{variant} {verb} {reference} by {points(abs(difference), plus=False)} of accuracy"


def beats(pair: Mapping) -> bool:
    return pair["difference_shown"] and pair["test"]["difference"] > 0


def against_baselines(pair: Mapping, comparison: Mapping) -> list[Mapping]:
    """The pairs of the same variant with baselines, where its own reference is an untrained model."""
    kinds = {name: variant["kind"] for name, variant in comparison["variants"].items()}
    if kinds[pair["reference"]] != "untrained":
        return []
    same = [row for row in comparison["pairs"] if row["variant"] == pair["variant"]]
    return [row for row in same if kinds[row["reference"]] == "baseline"]


def evidence(pair: Mapping, comparison: Mapping, flip: bool = False) -> str:
    """Interval and p-value, both corrected; flip: of reference less variant, for a sentence that says "behind by"."""
    low, high = pair["test"]["interval_holm"]
    ends, corrected = (-high, -low) if flip else (low, high), "corrected " if len(comparison["pairs"]) > 1 else ""
    between = interval(ends, "accuracy", plus=not pair["difference_shown"])
    return f"{corrected}{level(comparison)} interval {between}, {p_text(pair['test']['p_holm'])}"


def training_budget(epochs: int) -> str:
    """What a comparison after so many epochs can say, and what it cannot."""
    count = "one epoch" if epochs == 1 else f"at most {epochs} epochs"
    return (
        f"After {count} this compares how far each method has come by then, at the learning rates given. It says which "
        "answers better after that much training, not which would after more: while validation log loss still falls at "
        "the last epoch, the order of the methods may yet change."
    )


def tuning(adapters: Sequence[str], params: Params) -> str:
    """By how many trials the adapters' settings were chosen, and whether test questions had a part in it."""
    tuned = {name: params.tuning[name] for name in adapters if name in params.tuning}
    if not tuned:
        return "nothing was tuned: no search chose the adapters' settings"
    trials = {name: tuned[name].trials if name in tuned else 0 for name in adapters}
    text = f"trials of a search that chose the settings: {listed(f'{name} {count}' for name, count in trials.items())}"
    if len(set(trials.values())) > 1:
        text += ", not as many for each, which by itself can make one method look better"
    text += "; judged by validation log loss"
    if params.split.protocol == "cross_validation":
        return (
            f"{text}, not within each fold by itself: the questions that judged in one fold are test questions of "
            "another, so that scores of tuned adapters are higher here than they would be on new questions"
        )
    if {one.protocol for one in tuned.values()} != {params.split.protocol}:
        return f"{text}, under another split than this one: test questions may have had a part in the choice"
    return f"{text}; no test question had a part in the choice"


def level(comparison: Mapping) -> str:
    """The level of confidence, `95%`."""
    return f"{100 * comparison['confidence']:g}%"


def signed(number: float, digits: int, plus: bool = False) -> str:
    """A number with a true minus sign; zero has no sign."""
    text = f"{number:{'+' if plus else ''},.{digits}f}"
    if float(text.replace(",", "")) == 0:
        return text.lstrip("+-")
    return text.replace("-", MINUS)


def value(number: float | None, metric: str, plus: bool = False, digits: int = 0) -> str:
    """A metric as its column shows it: shares of questions in percent, the rest with three decimals.

    digits: decimals beyond those.
    """
    if number is None:
        return "undefined"
    if metric in PERCENT:
        return signed(100 * number, 1 + digits, plus) + ("" if plus else "%")
    return signed(number, 3 + digits, plus)


def interval(ends: Sequence[float] | None, metric: str, plus: bool = False) -> str:
    """`28.1 to 48.3` (of percent), `0.281 to 0.483`.

    An end beside zero has as many decimals as tell it from zero: rounded, the interval would seem to hold zero.
    """
    if ends is None:
        return "undefined"
    nearest = min(map(abs, ends)) if ends[0] * ends[1] > 0 else 0
    digits = 0
    while nearest and digits < 4 and not float(value(nearest, metric, digits=digits).rstrip("%")):
        digits += 1
    return " to ".join(value(end, metric, plus, digits).removesuffix("%") for end in ends)


def points(difference: float, plus: bool = True) -> str:
    """A difference between two accuracies."""
    return f"{signed(100 * difference, 1, plus)} points"


def significant(number: float) -> str:
    """Two significant digits, of what no machine measures better: `24`, `2,400`, `0.085`."""
    if not number:
        return "0"
    number = float(f"{number:.2g}")
    return f"{number:,.{max(0, 1 - math.floor(math.log10(abs(number))))}f}"


def listed(names: Iterable[object], word: str = "and") -> str:
    """`a`, `a and b`, `a, b and c`."""
    *first, last = map(str, names)
    return f"{', '.join(first)} {word} {last}" if first else last
