"""The pretraining mixture: instructed tasks over fresh studies, and span corruption.

As with FLAN's held-out tasks (Wei et al. 2022, arXiv 2109.01652), the question of the data set, "Does A reduce B?
Answer yes or no", is not in it as such: nothing here asks one of `generate.CLAIMS`' questions. What it takes to answer
one is: what happened to an outcome, whether a statement is true, and yes and no as answers to questions of other kinds.
"""

from collections.abc import Callable
from dataclasses import replace
from random import Random

from embedded.generate import CONTROLS, OUTCOMES, POPULATIONS, Study, fill, make_statement, make_study

Example = tuple[str, str]  # prompt and target, both plain text


def prompt(question: str, study: Study, instruction: str) -> str:
    return f"Question: {question} Abstract: {study.abstract} {instruction}"


def change(study: Study, rng: Random) -> Example:
    finding = rng.choice(study.findings)
    if rng.random() < 0.3:
        question = "Did {a} raise or lower {o}?"
        answer = {"decreased": "lower", "increased": "raise", "unchanged": "neither"}.get(finding.change, "unclear")
    else:
        question = rng.choice(("What happened to {o} with {a}?", "How did {a} change {o}?"))
        answer = finding.change
    return prompt(fill(question, a=study.treatment, o=finding.outcome), study, "Answer with one word."), answer


def claim(study: Study, rng: Random) -> Example:
    finding, true = rng.choice(study.findings), rng.random() < 0.5
    statement = make_statement(rng, finding.change, true)
    statement = fill(statement, a=study.treatment, o=finding.outcome, p=study.population)
    words = rng.choice((("true", "false"), ("right", "wrong"), ("supported", "refuted")))
    answer = "unclear" if finding.change == "unclear" else words[0] if true else words[1]
    instruction = f"{words[0].capitalize()} or {words[1]}?"
    if rng.random() < 0.3:
        return prompt(f"Is it {words[0]} that {statement[:1].lower()}{statement[1:-1]}?", study, instruction), answer
    return f"{rng.choice(('Claim', 'Statement'))}: {statement} Abstract: {study.abstract} {instruction}", answer


def alike(study: Study, rng: Random) -> Example:
    first, second = rng.sample(study.findings, 2)
    question = f"Did {first.outcome} and {second.outcome} go the same way?"
    return prompt(
        question, study, "Answer the question with yes or no."
    ), "yes" if first.change == second.change else "no"


def which_outcome(study: Study, rng: Random) -> Example:
    changes = [finding.change for finding in study.findings]
    finding = rng.choice([f for f in study.findings if changes.count(f.change) == 1] or study.findings[:1])
    question = {
        "decreased": "Which outcome went down?",
        "increased": "Which outcome went up?",
        "unchanged": "Which outcome was not affected?",
        "unclear": "Which outcome had mixed results?",
    }[finding.change]
    return prompt(question, study, "Name the outcome."), finding.outcome


def design(study: Study, rng: Random) -> Example:
    if rng.random() < 0.5:
        return prompt("Which design was used?", study, "Answer with one word."), study.design
    asked = study.design if rng.random() < 0.5 else rng.choice(("randomised", "prospective", "retrospective"))
    answer = "yes" if asked == study.design else "no"
    return prompt(f"Was the study {asked}?", study, "Answer the question with yes or no."), answer


def reported(study: Study, rng: Random) -> Example:
    there = [finding.outcome for finding in study.findings]
    asked = rng.choice(there) if rng.random() < 0.5 else rng.choice(OUTCOMES)
    question = rng.choice(("Was {o} reported?", "Does the study measure {o}?", "Is {o} among the outcomes?"))
    answer = "yes" if asked in there else "no"
    return prompt(fill(question, o=asked), study, "Answer the question with yes or no."), answer


def order(study: Study, rng: Random) -> Example:
    first, second = rng.sample([finding.outcome for finding in study.findings] + [rng.choice(OUTCOMES)], 2)
    reported = [finding.outcome for finding in study.findings]
    both = first in reported and second in reported
    answer = "maybe" if not both else "yes" if reported.index(first) < reported.index(second) else "no"
    question = f"Is {first} reported before {second}?"
    return prompt(question, study, "Answer the question with yes, no or maybe."), answer


def population(study: Study, rng: Random) -> Example:
    asked = study.population if rng.random() < 0.5 else rng.choice(POPULATIONS)
    answer = "yes" if asked == study.population else "no"
    return prompt(f"Did the study enrol {asked}?", study, "Answer the question with yes or no."), answer


def control(study: Study, rng: Random) -> Example:
    if rng.random() < 0.5:
        return prompt(f"What was {study.treatment} compared with?", study, "Name it."), study.control
    asked = study.control if rng.random() < 0.5 else rng.choice(CONTROLS)
    answer = "yes" if asked == study.control else "no"
    return prompt(f"Was the control group given {asked}?", study, "Answer the question with yes or no."), answer


def patients(study: Study, rng: Random) -> Example:
    return prompt("How many took part?", study, "Answer with a number."), str(study.patients)


def span_corruption(study: Study, rng: Random, rate: float = 0.15, span: int = 3) -> Example:
    """Replace spans of words by sentinels; the target is each sentinel with its words (Raffel et al. 2020, T5)."""
    words = study.abstract.split()
    count = max(1, round(len(words) * rate / span))
    starts = sorted(rng.sample(range(0, len(words) - span, span + 1), count))
    source, target, end = [], [], 0
    for i, start in enumerate(starts):
        source += [*words[end:start], f"<extra_id_{i}>"]
        target += [f"<extra_id_{i}>", *words[start : start + span]]
        end = start + span
    return " ".join(source + words[end:]), " ".join(target)


MIXTURE: dict[Callable[[Study, Random], Example], int] = {
    change: 24,
    claim: 36,
    alike: 8,
    which_outcome: 3,
    reported: 8,
    order: 4,
    design: 4,
    population: 4,
    control: 3,
    patients: 1,
    span_corruption: 5,
}
ABOUT_RESULTS = (change, claim, alike, which_outcome, reported, order)  # what the results alone answer
HEADLINES = {
    "decreased": ("{A} reduced {o}.", "{O} fell with {a}."),
    "increased": ("{A} increased {o}.", "{O} rose with {a}."),
    "unchanged": ("{A} had no effect on {o}.", "{O} was similar with {a}."),
    "unclear": ("{A} had mixed effects on {o}.", "{O} was inconsistent with {a}."),
}


def shorten(study: Study, text: str, rng: Random) -> Study:
    """The study with its whole abstract, its `results` alone, or two findings as `headlines`."""
    if text == "abstract":
        return study
    findings = study.findings
    if text == "headlines":
        findings = tuple(
            replace(f, sentence=fill(rng.choice(HEADLINES[f.change]), a=study.treatment, o=f.outcome))
            for f in findings[:2]
        )
    return replace(study, background="", methods="", findings=findings)


def make_example(rng: Random, text: str = "abstract") -> Example:
    """One example of the mixture, about a study that no question set can hold.

    text: what the model gets to read of it (see `shorten`). Less than the abstract serves the curriculum that
    pretraining begins with; then nothing is asked that the results do not say.
    """
    study = shorten(make_study(rng, reserved=False), text, rng)
    tasks = tuple(MIXTURE) if text == "abstract" else ABOUT_RESULTS
    return rng.choices(tasks, weights=[MIXTURE[task] for task in tasks])[0](study, rng)
