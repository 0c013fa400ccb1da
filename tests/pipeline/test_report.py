"""The report of a finished run, opened in a real browser."""

import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
from playwright.sync_api import Page, expect

from peftqa.errors import UserError
from tests.conftest import ROOT, Workspace
from tests.finished_run import QUESTIONS, run_stages, write_run

WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
ALL = ["majority", "tfidf", "base", "calibrated", "question_only", "prompt", "prefix"]
TWO_LABELS = ["yes", "no"]
RUNS = {
    "one training": {"labels": TWO_LABELS, "seeds": [42], "variants": ALL},
    "folds and seeds": {
        "labels": ["yes", "no", "maybe"],
        "protocol": "cross_validation",
        "folds": [0, 1, 2],
        "seeds": [1, 2, 3],
        "questions": 14,
        "variants": ALL,
        "data_name": "synthetic abstracts",
    },
    "base alone, one label in truth": {"labels": TWO_LABELS, "seeds": [42], "variants": ["base"], "truth": "yes"},
    "official folds and seeds": {
        "labels": TWO_LABELS,
        "protocol": "official",
        "folds": [0, 1],
        "seeds": [1, 2],
        "questions": 20,
        "variants": ALL,
        "same_test": True,
    },
    "adapters alone": {
        "labels": ["no", "yes"],
        "protocol": "official",
        "folds": [0, 1],
        "seeds": [1, 2],
        "variants": ["prefix", "prompt"],
        "same_test": True,
    },
}
COUNT = {"folds and seeds": 42, "official folds and seeds": 20}


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    """The workspace of a run with its report, by the run's name; each is made once."""
    made = {}

    def report(name: str) -> Workspace:
        if name not in made:
            made[name] = run_to_report(tmp_path_factory.mktemp("run") / "workspace", **RUNS[name])
        return made[name]

    return report


def run_to_report(
    folder: Path,
    labels: list[str],
    seeds: list[int],
    variants: list[str],
    protocol: str = "random",
    folds: tuple = (0,),
    data_name: str = "PubMedQA (PQA-L)",
    **more,
) -> Workspace:
    workspace = Workspace(folder)
    workspace.set(data__labels=labels, data__name=data_name, split__protocol=protocol, split__folds=list(folds))
    workspace.set(train__seeds=seeds, evaluate__variants=variants, selected=variants[0], compare__resamples=200)
    write_run(folder, labels, seeds, variants, folds, **more)
    run_stages(folder, variants)
    return workspace


def comparison_of(workspace: Workspace) -> dict:
    return json.loads((workspace.folder / "comparison/comparison.json").read_text())


@pytest.fixture
def opened(chromium):
    """Opens the report of a workspace; at the end nothing may have been logged, and nothing but the file asked for."""
    contexts, logged, requested, allowed = [], [], set(), set()

    def open_report(workspace: Workspace, viewport: dict = WIDE, **options) -> Page:
        context = chromium.new_context(viewport=viewport, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("console", lambda message: logged.append(message.text))
        page.on("pageerror", lambda error: logged.append(str(error)))
        page.on("dialog", lambda dialog: logged.append(dialog.message))
        page.on("request", lambda request: requested.add(request.url))
        address = (workspace.folder / "report/index.html").as_uri()
        allowed.add(address)
        page.goto(address)
        page.locator("#questions > details > summary").click()  # closed at first
        return page

    yield open_report
    for context in contexts:
        context.close()
    assert logged == []
    assert requested == allowed


def listed_ids(page: Page) -> list[str]:
    """PMIDs of the questions that are to be seen."""
    summaries = page.locator("#questions-list > li:visible summary").all_inner_texts()
    return [re.search(r"PMID (\d+)", text).group(1) for text in summaries]


def answers(workspace: Workspace) -> pd.DataFrame:
    """Label and every variant's answer (of the mean over runs), by PMID, as the prediction files have them."""
    columns = {}
    for folder in sorted((workspace.folder / "predictions").iterdir()):
        table = pd.concat([pd.read_csv(path, dtype={"id": str}) for path in folder.rglob("*.csv")])
        table = table[table["split"] == "test"]
        mean = table.groupby("id").mean(numeric_only=True).drop(columns=["seed", "fold"])
        columns[folder.name] = mean.idxmax(axis=1).str.removeprefix("p_")
        columns["label"] = table.drop_duplicates("id").set_index("id")["label"]
    return pd.DataFrame(columns)


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("viewport", [WIDE, PHONE], ids=["wide", "phone"])
def test_the_page_stands_alone_and_fits_its_window(reported, opened, name, viewport):
    page = opened(reported(name), viewport)
    assert page.evaluate("document.documentElement.scrollWidth") == viewport["width"]
    # Nothing is cut off either: what does not fit scrolls in a frame that the keyboard reaches.
    beyond = """() => [...document.querySelectorAll("body *")].filter((element) =>
        !element.closest(".scroll") && element.getBoundingClientRect().right > innerWidth + 1)
        .map((element) => element.outerHTML.slice(0, 80))"""
    assert page.evaluate(beyond) == []
    # And here all of it does fit: no column is out of sight.
    wide = "() => [...document.querySelectorAll('.scroll')].filter((frame) => frame.scrollWidth > frame.clientWidth)"
    assert page.evaluate(f"({wide})().length") == 0
    assert len(listed_ids(page)) == COUNT.get(name, 40)


def test_findings_figure_flags_table_and_pairs_are_those_of_the_comparison(reported, opened):
    workspace = reported("one training")
    page, comparison = opened(workspace), comparison_of(workspace)
    markdown = (workspace.folder / "report/report.md").read_text(encoding="utf-8")
    opening = (
        "On 40 test questions of PubMedQA (PQA-L), one training per adapter. The tests are about these trained "
        "adapters; p and intervals are corrected for 9 tests:"
    )
    assert page.locator(".finding p").inner_text() == opening and f"**{opening}**" in markdown
    found = page.locator(".finding li").all()
    assert len(found) == 5  # each adapter against untrained models, and against each other
    for item in found:
        claim = item.locator("b").inner_text()
        evidence = item.evaluate("item => item.lastChild.textContent.trim()")
        assert f"- **{claim}**: {evidence}\n" in markdown
        assert claim in [pair["verdict"] for pair in comparison["pairs"]]
    flags = [flag["text"] for flag in comparison["flags"]]
    assert page.locator(".note li").all_inner_texts() == flags and len(flags) >= 3
    assert all(f"- {flag}\n" in markdown for flag in flags)
    # All of that on the first screen, with a figure of every variant beside it.
    assert page.locator(".note").bounding_box()["y"] + page.locator(".note").bounding_box()["height"] < 900
    accuracy = {name: f"{100 * row['metrics']['accuracy']:.1f}%" for name, row in comparison["variants"].items()}
    shown = page.locator(".accuracy > span").all_inner_texts()
    people = ["human, unaided", "human, aided"]
    assert list(zip(shown[:14:2], shown[1:14:2], strict=True)) == list(accuracy.items()) and shown[14::2] == people
    results, pairs = page.locator("#results tbody tr"), page.locator("#pairs table").first.locator("tbody tr")
    for row, (name, variant) in zip(results.all()[:7], comparison["variants"].items(), strict=True):
        low, high = (f"{100 * end:.1f}" for end in variant["intervals"]["accuracy"])
        for part in (name, accuracy[name], f"{low} to {high}", f"{variant['metrics']['roc_auc']:.3f}"):
            assert part in row.inner_text()
    assert [row.inner_text().split("\n")[0].strip() for row in results.all()[7:]] == people
    assert "(share of such answers: human, unaided 20.0%; human, aided 0.0%)" in page.locator("#results").inner_text()
    assert pairs.count() == 9 and pairs.first.locator("td").last.inner_text() == "undecided"
    assert pairs.nth(6).locator("td").last.inner_text() == "more accurate"


def test_a_variant_more_changes_no_mark_of_the_others_and_clips_no_legend(reported, opened):
    few, many = reported("adapters alone"), opened(reported("official folds and seeds"))
    symbols = "all => Object.fromEntries(all.map((symbol) => [symbol.id, symbol.innerHTML]))"
    of_many = many.locator("symbol").evaluate_all(symbols)
    of_few = opened(few).locator("symbol").evaluate_all(symbols)
    assert of_few == {name: of_many[name] for name in of_few} and len(set(of_many.values())) == len(of_many) == 7
    legends = {legend.inner_text() for legend in many.locator(".legend").all()}
    assert legends == {" ".join(names) for names in (ALL, ALL[1:], ALL[5:])}  # the dotted line is majority's precision


def test_folds_and_seeds_have_their_curves_and_spread(reported, opened):
    workspace = reported("folds and seeds")
    page, comparison = opened(workspace), comparison_of(workspace)
    assert (
        "means over 9 trainings per adapter. The tests are about the methods;" in page.locator(".finding").inner_text()
    )
    captions = page.locator("#curves figcaption").all_inner_texts()
    for label in ("yes", "no", "maybe"):
        assert any(caption.startswith(f"ROC curve: {label}") for caption in captions)
    spread = page.get_by_role("table", name="Accuracy of each seed").locator("tbody tr")
    assert spread.count() == 2
    each = [f"{100 * row['accuracy']:.1f}" for row in comparison["variants"]["prompt"]["replicates"].values()]
    assert spread.first.locator("td").last.inner_text() == ", ".join(each)
    headings = page.locator("#pairs thead").first.inner_text()
    assert "Sceptic's p" in headings and "Standard errors" in headings and "Only one right" not in headings
    assert page.locator(".matrix").first.locator("td").count() == 9
    assert "folds 0, 1 and 2" in page.locator("#method").inner_text()


def test_synthetic_data_are_called_so_and_nobody_has_answered_them(reported, opened):
    page = opened(reported("folds and seeds"))
    assert "synthetic abstracts" in page.title()
    for place in ("h1", ".finding p", "#results .caption >> nth=0"):
        assert "synthetic abstracts" in page.locator(place).inner_text()
    assert "human" not in page.locator("body").inner_text()


def test_the_method_says_all_that_was_set(reported, opened):
    text = opened(reported("one training")).locator("#method").inner_text()
    for part in (
        *("learning_rate 0.3", "init vocabulary", "num_virtual_tokens 20", "constant learning rate", "dropout 0.0"),
        *("clipped at norm 1.0", "dtype auto", "2 threads", "torch ", "transformers ", "peft ", "epoch kept 2 of 3"),
        *("92,160 trained parameters", "FLAN's instruction data", "exact McNemar test", "correction for 9 pairs"),
    ):
        assert part in text


def test_costs_have_two_digits(reported, opened):
    text = opened(reported("one training")).locator("#cost table").inner_text()
    assert text.split("prefix")[-1].split() == ["100", "1,500", "17", "26", "750"]


def test_what_one_variant_and_one_label_leave_out_is_said(reported, opened):
    text = opened(reported("base alone, one label in truth")).locator("body").inner_text()
    for sentence in (
        "no test compares it with another variant",
        "there is nothing to compare it with",
        "so ROC and precision-recall curves do not exist",
        "None of the variants listed was trained",
        "All test questions have the label yes",
    ):
        assert sentence in text
    assert "\N{EN DASH}" in text and "None\n" not in text and "nan" not in text.lower().split()


def test_text_of_the_data_file_stays_text(reported, opened):
    page = opened(reported("one training"))
    assert page.title() == "prompt and prefix on PubMedQA (PQA-L)"
    shown = page.locator(".question").evaluate_all("all => all.map((element) => element.textContent)")
    assert shown[: len(QUESTIONS)] == QUESTIONS
    assert page.locator(".question *, li details p *, #questions-list img").count() == 0
    assert page.locator("script").count() == 1


@pytest.mark.parametrize("name", ["one training", "folds and seeds"])
def test_filters_leave_the_questions_they_name(reported, opened, name):
    workspace = reported(name)
    page, given = opened(workspace), answers(workspace)
    variants = given.drop(columns="label")
    wrong = variants.ne(given["label"], axis=0)
    masks = {
        "": wrong.notna().all(axis=1),
        "disagree": variants.nunique(axis=1) > 1,
        "some-wrong": wrong.any(axis=1),
        "all-wrong": wrong.all(axis=1),
        "wrong-prefix": wrong["prefix"],
        "wrong-base": wrong["base"],
    }
    show, label, text = page.get_by_label("Show"), page.get_by_label("Label"), page.get_by_label("Text or PMID")
    for value, mask in masks.items():
        show.select_option(value)
        assert listed_ids(page) == sorted(given.index[mask]), value
        expect(page.locator("#filters output")).to_have_text(f"{mask.sum()} of {len(given)} questions")
    assert 0 < masks["all-wrong"].sum() < masks["some-wrong"].sum() <= len(given)

    label.select_option("label-no")
    assert listed_ids(page) == sorted(given.index[masks["wrong-base"] & (given["label"] == "no")])
    show.select_option("")
    label.select_option("")
    text.fill("  TREATMENT 11 ")
    assert {pmid[-2:] for pmid in listed_ids(page)} == {"11"}
    text.fill("3011")
    assert listed_ids(page) == ["3011"]
    text.fill("no such words")
    assert listed_ids(page) == []


def test_the_keyboard_alone_filters_and_opens_an_abstract(reported, opened):
    page = opened(reported("one training"))
    page.reload()
    order = []
    for _ in range(40):
        page.keyboard.press("Tab")
        element = page.evaluate(
            """() => { const at = document.activeElement, style = getComputedStyle(at);
            return [at.name || at.tagName, style.outlineStyle, parseFloat(style.outlineWidth)]; }"""
        )
        assert element[1] != "none" and element[2] >= 1, element
        order.append(element[0])
        if element[0] == "answers":
            page.keyboard.type("variants d")
        if element[0] == "SUMMARY":
            page.keyboard.press("Enter")
            if order.count("SUMMARY") == 2:
                break
    assert order[:8] == ["A"] * 8  # the sections
    assert order[-5:] == ["SUMMARY", "answers", "label", "text", "SUMMARY"]
    assert page.get_by_label("Show").input_value() == "disagree"
    assert 0 < len(listed_ids(page)) < 40
    assert page.locator("li details[open]:visible p").inner_text().startswith("<i>Methods</i> of study")


def test_without_javascript_the_questions_are_a_plain_list(reported, opened):
    page = opened(reported("one training"), java_script_enabled=False)
    assert page.locator("#filters").is_hidden()
    assert page.locator("#questions-list > li:visible").count() == 40
    page.locator("li summary").first.click()
    assert page.locator("li details p").first.is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_has_the_contrast_that_wcag_aa_asks_for(reported, opened, scheme):
    page = opened(reported("folds and seeds"), color_scheme=scheme)
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 27)"}[scheme]
    page.emulate_media(media="print", color_scheme=scheme)
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    page.emulate_media(media="screen", color_scheme=scheme)
    low = page.evaluate(
        """() => {
        const channels = (text) => text.match(/[\\d.]+/g).map(Number);
        const background = (element) => {  // what lies under the text, layers put together
            if (!element) return [255, 255, 255];
            const [r, g, b, a = 1] = channels(getComputedStyle(element).backgroundColor);
            if (a === 1) return [r, g, b];
            const under = background(element.parentElement);
            return [r, g, b].map((value, i) => a * value + (1 - a) * under[i]);
        };
        const luminance = (color) => color.map((value) => value / 255)
            .map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
            .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
        const low = [];
        const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
        while (walker.nextNode()) {
            const element = walker.currentNode.parentElement;
            if (!walker.currentNode.data.trim() || !element.checkVisibility()) continue;
            const style = getComputedStyle(element);
            const ink = channels(element instanceof SVGElement ? style.fill : style.color).slice(0, 3);
            const [dark, light] = [luminance(ink), luminance(background(element))].sort((a, b) => a - b);
            const ratio = (light + 0.05) / (dark + 0.05);
            if (ratio < 4.5) low.push([walker.currentNode.data.slice(0, 40), ratio]);
        }
        return low; }"""
    )
    assert low == []


def test_figures_have_names_and_ids_are_used_once(reported, opened):
    page = opened(reported("folds and seeds"))
    figures = page.get_by_role("img")
    # Reliability of each variant, risk, ROC and precision-recall of each label, training, time.
    assert figures.count() == 7 + 1 + 3 + 3 + 2 + 1
    named = "all => all.map((svg) => svg.querySelector('title').textContent + svg.querySelector('desc').textContent)"
    assert all(len(text) > 20 for text in figures.evaluate_all(named))
    ids = page.locator("[id]").evaluate_all("all => all.map((element) => element.id)")
    # Matplotlib defines a mark again wherever it is drawn; equal marks have equal ids.
    ids = [name for name in ids if not re.fullmatch("[mp][0-9a-f]{10}", name)]
    assert len(ids) == len(set(ids))


def test_a_second_run_differs_in_the_cost_section_alone(reported):
    workspace = reported("adapters alone")
    report = workspace.folder / "report"
    first = {path.name: path.read_bytes() for path in report.iterdir()}
    run_stages(workspace.folder, [], ["report"])
    assert {path.name: path.read_bytes() for path in report.iterdir()} == first

    for path in (workspace.folder / "runtime/predict/prefix").rglob("*.json"):
        path.write_text(path.read_text().replace("26.4", "77.7"))
    run_stages(workspace.folder, [], ["report"])
    assert (report / "report.md").read_bytes() == first["report.md"]
    page, cost = (report / "index.html").read_text(), r'<section id="cost">.*?</section>'
    assert (
        '<td data-column="slow question, milliseconds, 95th percentile">78</td>'
        in re.search(cost, page, re.DOTALL).group()
    )
    assert re.sub(cost, "", page, flags=re.DOTALL) == re.sub(cost, "", first["index.html"].decode(), flags=re.DOTALL)


@pytest.fixture
def copied(reported, workspace):
    """A copy of a finished run that a test may break."""
    shutil.copytree(reported("one training").folder, workspace.folder, dirs_exist_ok=True)
    return workspace


def test_runtimes_of_dropped_seeds_are_deleted(copied):
    stale = copied.folder / "runtime/train/prompt/fold-0/seed-7.json"
    stale.write_text("{}")
    run_stages(copied.folder, [], ["report"])
    assert copied.files("runtime") == [
        *("predict/base/fold-0/seed-0.json", "predict/calibrated/fold-0/seed-0.json"),
        *(f"predict/{name}/fold-0/seed-42.json" for name in ("prefix", "prompt")),
        "predict/question_only/fold-0/seed-0.json",
        *(f"train/{name}/fold-0/seed-42.json" for name in ("prefix", "prompt")),
    ]


@pytest.mark.parametrize("path", ["comparison/roc.csv", "runtime/train/prefix/fold-0/seed-42.json"])
def test_a_missing_file_is_named(copied, path):
    (copied.folder / path).unlink()
    with pytest.raises(UserError, match=rf"^{re.escape(path)} is missing; run `dvc repro"):
        run_stages(copied.folder, [], ["report"])


def test_files_of_different_runs_are_refused(copied):
    copied.set(evaluate__variants=["base"], selected="base")
    with pytest.raises(UserError, match=r"compares majority, .*prefix, but evaluate\.variants lists base; run"):
        run_stages(copied.folder, [], ["report"])
    copied.set(evaluate__variants=ALL)
    fold = copied.folder / "data/split/fold-0"
    (fold / "test.csv").write_bytes((fold / "val.csv").read_bytes())
    with pytest.raises(UserError, match="predictions/majority has other questions than data/split; run `dvc repro`"):
        run_stages(copied.folder, [], ["report"])


def test_screenshots_are_kept(reported, opened):
    """For people to look at; CI keeps the files in report/."""
    folder = ROOT / "report"
    folder.mkdir(exist_ok=True)
    workspace = reported("one training")
    for name, viewport, scheme in (("wide", WIDE, "light"), ("narrow", PHONE, "light"), ("dark", WIDE, "dark")):
        path = folder / f"screenshot-{name}.png"
        path.unlink(missing_ok=True)
        opened(workspace, viewport, color_scheme=scheme).screenshot(path=path, full_page=True)
        assert path.stat().st_size > 20_000
