"""The report of a finished run, opened in a real browser."""

import json
import re
import shutil
from functools import cache

import pytest
from playwright.sync_api import Page

from peftqa.errors import UserError
from tests.conftest import Workspace
from tests.finished_run import QUESTIONS, run_stages, write_run

WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
ALL = ["majority", "tfidf", "base", "calibrated", "question_only", "prompt", "prefix"]
RUNS = {
    "one training": {"labels": ["yes", "no"], "seeds": [42], "variants": ALL},
    "folds and seeds": {
        "labels": ["yes", "no", "maybe"],
        "protocol": "cross_validation",
        "folds": [0, 1, 2],
        "seeds": [1, 2, 3],
        "questions": 14,
        "variants": ALL,
        "data_name": "synthetic abstracts <b>of</b> *stars*",
    },
    "base alone, one label in truth": {"labels": ["yes", "no"], "seeds": [42], "variants": ["base"], "truth": "yes"},
    "adapters alone": {
        "labels": ["no", "yes"],
        "protocol": "official",
        "folds": [0, 1],
        "seeds": [1, 2],
        "variants": ["prefix", "prompt"],
        "same_test": True,
    },
}


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    """The workspace of a run with its report, by the run's name; each is made once."""

    @cache
    def report(name: str) -> Workspace:
        return run_to_report(Workspace(tmp_path_factory.mktemp("run") / "workspace"), **RUNS[name])

    return report


def run_to_report(
    workspace: Workspace,
    labels: list[str],
    seeds: list[int],
    variants: list[str],
    protocol: str = "random",
    folds: tuple = (0,),
    data_name: str = "PubMedQA (PQA-L)",
    **more,
) -> Workspace:
    workspace.set(data__labels=labels, data__name=data_name, split__protocol=protocol, split__folds=list(folds))
    workspace.set(train__seeds=seeds, evaluate__variants=variants, selected=variants[0], compare__resamples=200)
    write_run(workspace.folder, labels, seeds, variants, folds, **more)
    run_stages(workspace.folder, variants)
    return workspace


def written(workspace: Workspace) -> tuple[dict, str]:
    """The comparison and the report as Markdown."""
    comparison = (workspace.folder / "comparison/comparison.json").read_text()
    return json.loads(comparison), (workspace.folder / "report/report.md").read_text(encoding="utf-8")


@pytest.fixture
def opened(chromium):
    """Opens the report of a workspace; at the end nothing may have been logged, and nothing but the file asked for."""
    pages, logged, requested, allowed = [], [], set(), set()

    def open_report(workspace: Workspace, viewport: dict = WIDE) -> Page:
        page = chromium.new_page(viewport=viewport)
        pages.append(page)
        page.on("console", lambda message: logged.append(message.text))
        page.on("dialog", lambda dialog: logged.append(dialog.message))
        page.on("request", lambda request: requested.add(request.url))
        address = (workspace.folder / "report/index.html").as_uri()
        allowed.add(address)
        page.goto(address)
        page.locator("main > details > summary").click()  # closed at first
        return page

    yield open_report
    for page in pages:
        page.close()
    assert logged == []
    assert {url for url in requested if not url.startswith("data:")} == allowed


def rows_below(page: Page, section: str) -> list[list[str]]:
    """The cells of a section's first table, the headings first."""
    rows = page.locator(f"#{section} ~ div.scroll").first.locator("tr").all()
    return [row.locator("th, td").all_inner_texts() for row in rows]


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("viewport", [WIDE, PHONE], ids=["wide", "phone"])
def test_the_page_stands_alone_and_fits_its_window(reported, opened, name, viewport):
    page = opened(reported(name), viewport)
    assert page.evaluate("document.documentElement.scrollWidth") == viewport["width"]
    scrolling = "[...document.querySelectorAll('.scroll')].filter((at) => at.scrollWidth > at.clientWidth + 1).length"
    assert viewport == PHONE or page.evaluate(scrolling) == 0
    sections = page.locator("nav a").evaluate_all("all => all.map((link) => link.getAttribute('href'))")
    assert "#results" in sections and all(page.locator(f"h2{section}").count() == 1 for section in sections)


@pytest.mark.parametrize("name", ["one training", "folds and seeds"])
def test_findings_and_flags_are_on_the_first_screen_and_those_of_the_comparison(reported, opened, name):
    workspace = reported(name)
    page, (comparison, markdown) = opened(workspace), written(workspace)
    found = page.locator("main > ul").first.locator("li").all()
    assert len(found) == 5  # each adapter against untrained models, and against each other
    for item in found:
        claim = item.locator("strong").inner_text()
        evidence = item.evaluate("item => item.lastChild.textContent.trim()").replace("<", r"\<")
        assert f"- **{claim}** {evidence}\n" in markdown
        assert claim in [pair["verdict"] for pair in comparison["pairs"]]
    flags = [flag["text"] for flag in comparison["flags"]]
    assert page.locator("blockquote li").all_inner_texts() == flags and len(flags) >= 3
    assert all(f"> - {flag}\n" in markdown for flag in flags)
    note, figure = page.locator("blockquote").bounding_box(), page.locator("img").first.bounding_box()
    assert note["y"] + note["height"] < 900 and figure["y"] + figure["height"] < note["y"]


def test_the_table_of_results_has_every_variant_with_intervals_and_the_humans(reported, opened):
    workspace = reported("one training")
    rows, (comparison, markdown) = rows_below(opened(workspace), "results"), written(workspace)
    for row, (name, variant) in zip(rows[1:8], comparison["variants"].items(), strict=True):
        low, high = (f"{100 * end:.1f}" for end in variant["intervals"]["accuracy"])
        accuracy = f"{100 * variant['metrics']['accuracy']:.1f}%"
        assert row[:2] == [name, f"{accuracy} ({low}\N{NO-BREAK SPACE}to\N{NO-BREAK SPACE}{high})"]
        assert f"| {name} | {row[1]} |" in markdown
    assert [row[0] for row in rows[8:]] == ["human, unaided", "human, aided"]
    assert "human" not in written(reported("folds and seeds"))[1]  # nobody has answered synthetic questions
    assert "20.0% of the answers are not yes or no and count as wrong" in markdown


@pytest.mark.parametrize(
    ("name", "present", "absent"),
    [
        ("one training", ["only one right"], ["sceptic's p", "standard errors"]),
        ("folds and seeds", ["sceptic's p", "standard errors"], ["only one right"]),
    ],
)
def test_the_table_of_pairs_has_the_columns_of_its_tests(reported, opened, name, present, absent):
    workspace = reported(name)
    headings, *rows = rows_below(opened(workspace), "pairs")
    assert set(present) <= set(headings) and not set(absent) & set(headings)
    assert len(rows) == 9 and rows[6][0] == "prefix \N{MINUS SIGN} base" and rows[6][-1] == "more accurate"
    assert all(f"- **{heading}" in written(workspace)[1] for heading in present)


def test_text_of_data_and_params_stays_text(reported, opened):
    for name in ("one training", "folds and seeds"):
        page, data_name = opened(reported(name)), RUNS[name].get("data_name", "PubMedQA (PQA-L)")
        assert page.title() == f"prompt and prefix on {data_name}"
        assert page.locator("h1").inner_text() == f"prompt and prefix on {data_name}, frozen model google/flan-t5-small"
        shown = page.locator("ol > li > b").evaluate_all("all => all.map((element) => element.textContent)")
        assert shown[: len(QUESTIONS)] == QUESTIONS and len(shown) == {"one training": 40, "folds and seeds": 42}[name]
        assert page.locator("script, ol img, h1 *, li details i").count() == 0


def test_figures_have_descriptions_and_the_majority_has_no_precision_recall_curve(reported, opened):
    figures = opened(reported("folds and seeds")).locator("img")
    texts = figures.evaluate_all("all => all.map((figure) => figure.alt)")
    # Accuracy, differences, risk, ROC and precision-recall of each label, reliability of each variant, training.
    assert len(texts) == 2 + 1 + 3 + 3 + 7 + 2 and all(len(text) > 20 for text in texts)
    assert figures.evaluate_all("all => all.every((figure) => figure.naturalWidth > 200)")
    assert texts[3] == f"ROC curve: yes: true positive rate by false positive rate of {', '.join(ALL)}"
    assert texts[6] == f"Precision and recall: yes: precision by recall of {', '.join(ALL[1:])}"


def test_one_variant_and_one_label_leave_out_what_does_not_apply(reported, opened):
    page = opened(reported("base alone, one label in truth"))
    text = page.locator("body").inner_text()
    assert "No test compares it with another variant" in text and "All test questions have the label yes" in text
    assert page.locator("nav a").all_inner_texts() == ["Results", "Probabilities", "Cost", "Method", "Questions"]
    assert "\N{EN DASH}" in text and "None" not in text and "nan" not in text.lower().split()


def test_a_second_run_differs_in_the_table_of_cost_alone(reported):
    workspace = reported("adapters alone")
    report = workspace.folder / "report"
    first = {path.name: path.read_bytes() for path in report.iterdir()}
    run_stages(workspace.folder, [], ["report"])
    assert {path.name: path.read_bytes() for path in report.iterdir()} == first

    for path in (workspace.folder / "runtime/predict/prefix").rglob("*.json"):
        path.write_text(path.read_text().replace("26.4", "77.7"))
    run_stages(workspace.folder, [], ["report"])
    assert (report / "report.md").read_bytes() == first["report.md"]
    cell = '<td style="text-align:right">{}</td>'.format
    before, after = first["index.html"].decode(), (report / "index.html").read_text()
    before_cost, cost = before.partition('id="cost"')[::2]
    assert after == before_cost + 'id="cost"' + cost.replace(cell(26), cell(78), 1)  # two digits


@pytest.fixture
def copied(reported, workspace):
    """A copy of a finished run that a test may break."""
    shutil.copytree(reported("one training").folder, workspace.folder, dirs_exist_ok=True)
    return workspace


def test_runtimes_of_dropped_seeds_are_deleted(copied):
    before = copied.files("runtime")
    (copied.folder / "runtime/train/prompt/fold-0/seed-7.json").write_text("{}")
    run_stages(copied.folder, [], ["report"])
    assert copied.files("runtime") == before and len(before) == 7


@pytest.mark.parametrize("path", ["comparison/roc.csv", "runtime/train/prefix/fold-0/seed-42.json"])
def test_a_missing_file_is_named(copied, path):
    (copied.folder / path).unlink()
    with pytest.raises(UserError, match=rf"^{re.escape(path)} is missing; run `dvc repro"):
        run_stages(copied.folder, [], ["report"])
