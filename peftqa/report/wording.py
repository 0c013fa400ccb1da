"""Numbers and findings in words, for the report. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from peftqa.comparison import p_text

MINUS = "\N{MINUS SIGN}"
FIGURES = {
    "accuracy": "accuracy",
    "macro_f1": "macro-F1",
    "mcc": "MCC",
    "roc_auc": "ROC AUC",
    "log_loss": "log loss",
    "brier": "Brier score",
    "valid_answer_rate": "valid answers",
}
PERCENT = ("accuracy", "valid_answer_rate")
LOWER_IS_BETTER = ("log_loss", "brier")
SHOWN_IN_FINDING = 3  # clauses that a reader takes in


def finding(comparison: Mapping) -> str:
    """One sentence; which differences it names as such is for the corrected p-values alone to say."""
    pairs, variants = comparison["pairs"], comparison["variants"]
    opening = f"On {comparison['n']} test questions"
    if not pairs:
        ((name, variant),) = variants.items()
        accuracy = figure(variant["metrics"]["accuracy"], "accuracy")
        between = interval(variant["intervals"]["accuracy"], "accuracy")
        return (
            f"{opening}, {name} is right on {accuracy} ({percent(comparison)} CI {between}); "
            "no other variant was evaluated to compare it with."
        )
    shown = [pair for pair in pairs if pair["difference_shown"]]
    other = [pair for pair in pairs if not pair["difference_shown"]]
    if not shown and len(pairs) > 1:
        largest = max(pairs, key=lambda pair: abs(pair["differences"]["accuracy"]))
        return (
            f"{opening}, no difference in accuracy was shown between {listed(variants)}; the largest observed, "
            f"{largest['variant']} against {largest['reference']}, is {observed(largest, percent(comparison))}."
        )
    surest = sorted(shown, key=lambda pair: pair["mcnemar"]["p_holm"])[:SHOWN_IN_FINDING]
    clauses = [shown_clause(pair, percent(comparison)) for pair in shown if pair in surest]
    if len(shown) > SHOWN_IN_FINDING:
        clauses.append(f"{len(shown) - SHOWN_IN_FINDING} more of the {len(pairs)} pairs differ")
    if len(other) == 1:
        names = f"{other[0]['variant']} and {other[0]['reference']}"
        clauses.append(f"no difference was shown between {names}: observed {observed(other[0], percent(comparison))}")
    elif other:
        clauses.append(f"no difference was shown in the other {len(other)} pairs")
    return f"{opening}, {'; '.join(clauses)}."


def shown_clause(pair: Mapping, confidence: str) -> str:
    """`prefix beats base by 9.1 points of accuracy (95% CI 2.0 to 16.2, p = 0.012)`, of a difference that is shown."""
    better = pair["mcnemar"]["only_variant_right"] > pair["mcnemar"]["only_reference_right"]
    difference, (low, high) = pair["differences"]["accuracy"], pair["intervals"]["accuracy"]
    if not better:
        difference, low, high = -difference, -high, -low
    verb = "beats" if better else "falls behind"
    return (
        f"{pair['variant']} {verb} {pair['reference']} by {signed(100 * difference, 1)} points of accuracy "
        f"({confidence} CI {signed(100 * low, 1)} to {signed(100 * high, 1)}, {p_text(pair['mcnemar']['p_holm'])})"
    )


def observed(pair: Mapping, confidence: str) -> str:
    """`+2.2 points (95% CI -4.1 to +8.6, p = 0.754)`, of a difference that may be chance."""
    between = interval(pair["intervals"]["accuracy"], "accuracy", plus=True)
    return f"{points(pair['differences']['accuracy'])} ({confidence} CI {between}, {p_text(pair['mcnemar']['p_holm'])})"


def percent(comparison: Mapping) -> str:
    """The level of confidence, `95%`."""
    return f"{100 * comparison['confidence']:g}%"


def signed(value: float, digits: int, plus: bool = False) -> str:
    """A number with a true minus sign; zero has no sign."""
    text = f"{value:{'+' if plus else ''}.{digits}f}"
    if float(text) == 0:
        return text.lstrip("+-")
    return text.replace("-", MINUS)


def figure(value: float | None, key: str, plus: bool = False) -> str:
    """A figure as its column shows it: shares of questions in percent, the rest with three decimals."""
    if value is None:
        return "undefined"
    return signed(100 * value, 1, plus) + ("" if plus else "%") if key in PERCENT else signed(value, 3, plus)


def interval(ends: Sequence[float], key: str, plus: bool = False) -> str:
    """`28.1 to 48.3` (of percent), `0.281 to 0.483`."""
    return " to ".join(figure(end, key, plus).removesuffix("%") for end in ends)


def points(difference: float, plus: bool = True) -> str:
    """A difference between two accuracies."""
    return f"{signed(100 * difference, 1, plus)} points"


def listed(names: Iterable[object]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    *first, last = map(str, names)
    return f"{', '.join(first)} and {last}" if first else last
