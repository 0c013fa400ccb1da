"""Synthetic clinical abstracts with a question each, in PubMedQA's schema (Jin et al. 2019, arXiv 1909.06146).

A study compares a treatment with a control and reports several outcomes. Each outcome went one of four ways, and the
question claims something about one of them, so its answer needs both: "Does A reduce B?" is yes where B fell, no
where B rose or stood still, and maybe where the results are mixed or short of significance. The other outcomes are
distractors, drawn without regard to the answer. Nothing here is medical knowledge: every result is drawn by chance.
"""

import argparse
import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from random import Random

from ruamel.yaml import YAML

CHANGES = ("decreased", "increased", "unchanged", "unclear")

TREATMENTS = """
acupuncture; aerobic exercise; aspirin; breathing training; caffeine; cognitive therapy; cold packing; compression
bandaging; daily walking; dietary counselling; early feeding; early mobilisation; family support; fish oil; group
education; heat therapy; home monitoring; hypnosis; insulin infusion; iron supplementation; laser treatment; light
therapy; local anaesthesia; low dose heparin; magnesium; massage; melatonin; mindfulness; music therapy; nurse
follow-up; oral zinc; oxygen therapy; paracetamol; peer coaching; pelvic training; physiotherapy; probiotic milk;
reflexology; resistance training; routine drainage; saline irrigation; skin cooling; sleep coaching; spinal
anaesthesia; steroid injection; tai chi; telephone counselling; tranexamic acid; vitamin C; vitamin D; warm
humidified air; yoga
"""
CONTROLS = """
usual care; placebo; no treatment; standard treatment; a waiting list; written advice; rest alone; delayed care
"""
POPULATIONS = """
adolescents; adults with asthma; adults with diabetes; athletes; children; dialysis patients; elderly women; factory
workers; frail men; heart failure patients; hospital nurses; infants; intensive care patients; migraine sufferers;
new mothers; nursing home residents; obese adults; outpatients with arthritis; patients after hip surgery; patients
after knee surgery; patients after stroke; patients with back injury; pregnant women; premature babies; smokers;
students; surgical patients; transplant recipients; veterans; young men
"""
OUTCOMES = """
activity; airway resistance; alertness; anxiety; appetite; blood loss; blood pressure; body weight; bone density;
cholesterol; cough frequency; depression; drug use; fatigue; ferritin; fever duration; fluid intake; fracture risk;
glucose; grip strength; haemoglobin; heart rate; infection rate; joint stiffness; lactate; length of stay; lung
function; mobility; mortality; muscle mass; nausea; oedema; operating time; pain intensity; platelet count; quality
of life; reaction time; readmission rate; sleep quality; stress; swelling; time to discharge; tremor; urea;
vomiting; walking distance; wound size
"""


def _phrases(text: str) -> tuple[str, ...]:
    return tuple(" ".join(phrase.split()) for phrase in text.split(";"))


TREATMENTS, CONTROLS, POPULATIONS, OUTCOMES = map(_phrases, (TREATMENTS, CONTROLS, POPULATIONS, OUTCOMES))

BACKGROUNDS = (
    "The value of {a} in {p} is uncertain.",
    "{A} is widely offered to {p}, although evidence is scarce.",
    "Little is known about the effects of {a} in {p}.",
    "We examined {a} in {p}, with particular attention to {o}.",
    "Whether {p} benefit from {a} remains a matter of debate.",
    "{O} is a common concern in {p}, and {a} has been proposed.",
)
METHODS = {
    "randomised": (
        "In a randomised trial, {n} {p} received {a} or {c} for {w} weeks.",
        "We randomly assigned {n} {p} to {a} or {c} and followed them for {w} weeks.",
    ),
    "prospective": (
        "In a prospective cohort, {n} {p} given {a} or {c} were observed for {w} weeks.",
        "We enrolled {n} {p} prospectively; they chose {a} or {c} for {w} weeks.",
    ),
    "retrospective": (
        "We reviewed the records of {n} {p} treated with {a} or {c} over {w} weeks.",
        "In a retrospective study, charts of {n} {p} who had {a} or {c} for {w} weeks were analysed.",
    ),
}
FINDINGS = {
    "decreased": (
        "{O} was lower with {a} than with {c} ({x} versus {y}, p = {p}).",
        "{A} reduced {o} compared with {c} (p = {p}).",
        "{O} fell from {y} to {x} with {a} (p = {p}).",
        "There was a significant decrease in {o} in the {a} group (p = {p}).",
        "Compared with {c}, {a} led to less {o} ({x} versus {y}, p = {p}).",
    ),
    "increased": (
        "{O} was higher with {a} than with {c} ({y} versus {x}, p = {p}).",
        "{A} increased {o} compared with {c} (p = {p}).",
        "{O} rose from {x} to {y} with {a} (p = {p}).",
        "There was a significant increase in {o} in the {a} group (p = {p}).",
        "Compared with {c}, {a} led to more {o} ({y} versus {x}, p = {p}).",
    ),
    "unchanged": (
        "{O} did not differ between {a} and {c} ({x} versus {y}, p = {p}).",
        "{A} had no effect on {o} (p = {p}).",
        "{O} was similar with {a} and {c} (p = {p}).",
        "There was no significant decrease in {o} in the {a} group (p = {p}).",
        "There was no significant increase in {o} in the {a} group (p = {p}).",
    ),
    "unclear": (
        "{O} tended to be lower with {a}, short of significance (p = {p}).",
        "{O} tended to be higher with {a}, short of significance (p = {p}).",
        "{O} was lower with {a} in one centre and higher in another (p = {p}).",
        "{O} rose at first with {a} and fell later (p = {p}).",
    ),
}
P_VALUES = {"decreased": (1, 39), "increased": (1, 39), "unchanged": (150, 950), "unclear": (55, 99)}  # thousandths

# What can be claimed of an outcome: the changes that make it true, and how it is stated and asked.
CLAIMS = {
    "less": (
        ("decreased",),
        (
            ("{A} reduces {o} in {p}.", "{A} can reduce {o} in {p}.", "Does {a} reduce {o} in {p}?"),
            ("{A} lowers {o} in {p}.", "{A} can lower {o} in {p}.", "Does {a} lower {o} in {p}?"),
            (
                "{O} decreases with {a} in {p}.",
                "{O} may decrease with {a} in {p}.",
                "Does {o} decrease with {a} in {p}?",
            ),
        ),
    ),
    "more": (
        ("increased",),
        (
            ("{A} increases {o} in {p}.", "{A} can increase {o} in {p}.", "Does {a} increase {o} in {p}?"),
            ("{A} raises {o} in {p}.", "{A} can raise {o} in {p}.", "Does {a} raise {o} in {p}?"),
            ("{O} rises with {a} in {p}.", "{O} may rise with {a} in {p}.", "Does {o} rise with {a} in {p}?"),
        ),
    ),
    "any": (
        ("decreased", "increased"),
        (
            ("{A} affects {o} in {p}.", "{A} can affect {o} in {p}.", "Does {a} affect {o} in {p}?"),
            ("{A} alters {o} in {p}.", "{A} can alter {o} in {p}.", "Does {a} alter {o} in {p}?"),
        ),
    ),
    "none": (
        ("unchanged",),
        (
            (
                "{A} leaves {o} unchanged in {p}.",
                "{A} may leave {o} unchanged in {p}.",
                "Does {a} leave {o} unchanged in {p}?",
            ),
            (
                "{O} stays the same with {a} in {p}.",
                "{O} may stay the same with {a} in {p}.",
                "Does {o} stay the same with {a} in {p}?",
            ),
        ),
    ),
}
CLAIM_WEIGHTS = {"less": 35, "more": 30, "any": 10, "none": 25}
SECTIONS = (
    ("BACKGROUND", "METHODS", "RESULTS"),
    ("OBJECTIVE", "PATIENTS AND METHODS", "RESULTS"),
    ("AIMS", "MATERIAL AND METHODS", "RESULTS"),
)
LABEL_COUNTS = {"yes": 552, "no": 338, "maybe": 110}  # as in PQA-L
TEST_COUNTS = {"yes": 276, "no": 169, "maybe": 55}  # as in its official test set
JUDGE_COUNTS = {"yes": 1240, "no": 760}


@dataclass(frozen=True)
class Finding:
    outcome: str
    change: str  # one of CHANGES
    sentence: str


@dataclass(frozen=True)
class Study:
    treatment: str
    control: str
    population: str
    patients: int
    design: str
    background: str
    methods: str
    findings: tuple[Finding, ...]  # in the order of the abstract
    primary: Finding  # the one of them that the data set asks about

    @property
    def contexts(self) -> list[str]:
        return [self.background, self.methods, " ".join(finding.sentence for finding in self.findings)]

    @property
    def abstract(self) -> str:
        return " ".join(self.contexts).strip()


def is_reserved(treatment: str, population: str) -> bool:
    """Whether a pair belongs to the question sets; pretraining gets the other pairs, so no abstract can be in both."""
    return zlib.crc32(f"{treatment} in {population}".encode()) % 4 == 0


def fill(template: str, **values) -> str:
    """Format a template; a capital field holds the value of its small one, capitalised."""
    capitals = {key.upper(): value[:1].upper() + value[1:] for key, value in values.items() if isinstance(value, str)}
    return template.format(**values, **capitals)


def make_finding(rng: Random, treatment: str, control: str, outcome: str, change: str) -> Finding:
    low, p = rng.randint(10, 60), rng.randint(*P_VALUES[change]) / 1000
    high = low + rng.randint(1, 3) if change == "unchanged" else low + rng.randint(8, 30)
    template = rng.choice(FINDINGS[change])
    sentence = fill(
        template, a=treatment, c=control, o=outcome, x=low, y=high, p=f"{p:.3f}" if p < 0.01 else f"{p:.2f}"
    )
    return Finding(outcome, change, sentence)


def make_study(rng: Random, reserved: bool, primary_change: str | None = None) -> Study:
    """A study with two or three findings in random order, from the reserved pairs or the others.

    `primary_change`, where given, is what happened to the primary outcome; else it is drawn like the others'.
    """
    while True:
        treatment, population = rng.choice(TREATMENTS), rng.choice(POPULATIONS)
        if is_reserved(treatment, population) == reserved:
            break
    control, design = rng.choice(CONTROLS), rng.choice(tuple(METHODS))
    outcomes = rng.sample(OUTCOMES, rng.choice((2, 2, 3)))
    changes = rng.choices(CHANGES, weights=(30, 30, 30, 10), k=len(outcomes))
    changes[0] = primary_change or changes[0]
    findings = [make_finding(rng, treatment, control, o, change) for o, change in zip(outcomes, changes, strict=True)]
    words = {"a": treatment, "c": control, "p": population, "o": outcomes[0], "n": rng.randint(20, 400)}
    background = fill(rng.choice(BACKGROUNDS), **words)
    methods = fill(rng.choice(METHODS[design]), w=rng.randint(2, 52), **words)
    order = tuple(rng.sample(findings, len(findings)))
    return Study(treatment, control, population, words["n"], design, background, methods, order, findings[0])


def make_statement(rng: Random, change: str, true: bool) -> str:
    """A statement (template) that is true, or is not, of an outcome that changed so; of an unclear one, any."""
    kinds = [kind for kind in CLAIMS if change == "unclear" or (change in CLAIMS[kind][0]) == true]
    kind = rng.choices(kinds, weights=[CLAIM_WEIGHTS[kind] for kind in kinds])[0]
    return rng.choice(rng.choice(CLAIMS[kind][1])[:2])


def make_question(rng: Random, label: str) -> tuple[Study, str]:
    """A study of a reserved pair and a question about its primary outcome whose answer is `label`."""
    kind = rng.choices(tuple(CLAIMS), weights=tuple(CLAIM_WEIGHTS.values()))[0]
    true_changes, wordings = CLAIMS[kind]
    false_changes = [change for change in CHANGES[:3] if change not in true_changes]
    change = rng.choice({"yes": true_changes, "no": false_changes, "maybe": ("unclear",)}[label])
    study = make_study(rng, reserved=True, primary_change=change)
    return study, fill(rng.choice(wordings)[-1], a=study.treatment, o=study.primary.outcome, p=study.population)


CONCLUSIONS = {
    "decreased": "In {p}, {a} lowered {o}.",
    "increased": "In {p}, {a} raised {o}.",
    "unchanged": "In {p}, {a} did not change {o}.",
    "unclear": "Whether {a} changes {o} in {p} remains open.",
}
MESHES = ("Adult", "Aged", "Female", "Follow-Up Studies", "Humans", "Male", "Middle Aged", "Treatment Outcome")


def annotate(rng: Random, label: str, agreement: float) -> str:
    """An annotator's answer, which agrees with the final one at the given rate."""
    return label if rng.random() < agreement else rng.choice([other for other in LABEL_COUNTS if other != label])


def make_record(rng: Random, label: str) -> dict:
    """A record of PubMedQA's schema whose `final_decision` is `label`."""
    study, question = make_question(rng, label)
    conclusion = CONCLUSIONS[study.primary.change]
    return {
        "QUESTION": question,
        "CONTEXTS": study.contexts,
        "LABELS": list(rng.choice(SECTIONS)),
        "MESHES": [study.treatment.capitalize(), *sorted(rng.sample(MESHES, 4))],
        "YEAR": str(rng.randint(1990, 2018)),
        "reasoning_required_pred": annotate(rng, label, 0.78),  # about as often as PQA-L's annotators agree
        "reasoning_free_pred": annotate(rng, label, 0.90),
        "final_decision": label,
        "LONG_ANSWER": fill(conclusion, a=study.treatment, o=study.primary.outcome, p=study.population),
    }


def make_records(seed: int, counts: dict[str, int], avoid: dict[str, dict] | None = None) -> dict[str, dict]:
    """Records in random order, keyed by PMID-like ids of eight digits, with as many of each label as `counts` says.

    No question and no abstract occurs twice, nor one of the records in `avoid`: so a seed of its own and the 1,000
    records to avoid give further questions to judge a model on.
    """
    rng = Random(seed)
    labels = [label for label, count in counts.items() for _ in range(count)]
    rng.shuffle(labels)
    ids = [str(number) for number in rng.sample(range(10_000_000, 30_000_000), len(labels))]
    known = {text for record in (avoid or {}).values() for text in (record["QUESTION"], " ".join(record["CONTEXTS"]))}
    records = {}
    for pmid, label in zip(ids, labels, strict=True):
        while True:
            record = make_record(rng, label)
            texts = {record["QUESTION"], " ".join(record["CONTEXTS"])}
            if not texts & known:
                break
        known |= texts
        records[pmid] = record
    return records


def make_test_set(seed: int, records: dict[str, dict], counts: dict[str, int]) -> dict[str, str]:
    """Ids of a stratified test set and their labels, in file order, as in PubMedQA's `test_ground_truth.json`."""
    rng = Random(seed)
    chosen = set()
    for label, count in counts.items():
        chosen.update(rng.sample([i for i, record in records.items() if record["final_decision"] == label], count))
    return {pmid: record["final_decision"] for pmid, record in records.items() if pmid in chosen}


def make_judge(seed: int, records: dict[str, dict]) -> dict[str, dict]:
    """2,000 further records, yes and no in the data set's proportion, that share nothing with its `records`."""
    return make_records(seed, JUDGE_COUNTS, avoid=records)


def write_data_set(seed: int, folder: Path) -> None:
    """Write `ori_pqal.json` and `test_ground_truth.json`, in upstream's layout."""
    records = make_records(seed, LABEL_COUNTS)
    (folder / "ori_pqal.json").write_text(json.dumps(records, indent=4))
    (folder / "test_ground_truth.json").write_text(json.dumps(make_test_set(seed, records, TEST_COUNTS), indent=4))


def main() -> None:
    argparse.ArgumentParser(description="Write the synthetic data set and the ids of its test set.").parse_args()
    here = Path(__file__).parent
    write_data_set(YAML(typ="safe").load(here / "params.yaml")["generate"]["seed"], here)


if __name__ == "__main__":
    main()
