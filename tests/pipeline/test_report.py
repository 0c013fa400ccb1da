"""The report of a finished run, opened in a real browser."""

import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
from playwright.sync_api import Page, expect, sync_playwright

from tests.conftest import ROOT, Workspace
from tests.finished_run import QUESTIONS, write_run

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 360, "height": 740}
RUNS = {
    "two labels, one seed": {"labels": ["yes", "no"], "seeds": [42], "variants": ["base", "prompt", "prefix"]},
    "three labels, three seeds": {
        "labels": ["yes", "no", "maybe"],
        "seeds": [1, 2, 3],
        "variants": ["base", "prompt", "prefix"],
    },
    "base alone, one label in truth": {"labels": ["yes", "no"], "seeds": [42], "variants": ["base"], "truth": "yes"},
    "adapters alone": {"labels": ["no", "yes"], "seeds": [1, 2], "variants": ["prefix", "prompt"]},
}


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    """The workspace of a run with its report, by the run's name; each is made once."""
    made = {}

    def report(name: str) -> Workspace:
        if name not in made:
            made[name] = run_to_report(tmp_path_factory.mktemp("run") / "workspace", **RUNS[name])
        return made[name]

    return report


def run_to_report(folder: Path, labels: list[str], seeds: list[int], variants: list[str], **more) -> Workspace:
    workspace = Workspace(folder)
    paths = {name: "models/base/config.json" if name == "base" else f"models/adapters/{name}" for name in variants}
    workspace.set(data__labels=labels, train__seeds=seeds, evaluate__variants=paths, selected=variants[0])
    workspace.set(compare__resamples=500)
    write_run(folder, labels, seeds, variants, **more)
    for stage in ("compare", "report"):
        result = workspace.run(stage)
        assert result.returncode == 0, result.stderr
    assert result.stdout == "report/index.html\n"
    return workspace


@pytest.fixture(scope="module")
def chromium():
    executable = shutil.which("chromium")
    if not executable:
        pytest.skip("chromium is not installed (Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def opened(chromium):
    """Opens the report of a workspace; at the end nothing may have been logged, and nothing but the file asked for."""
    contexts, logged, requested, allowed = [], [], [], []

    def open_report(workspace: Workspace, viewport: dict = WIDE, **options) -> Page:
        context = chromium.new_context(viewport=viewport, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("console", lambda message: logged.append(message.text))
        page.on("pageerror", lambda error: logged.append(str(error)))
        page.on("dialog", lambda dialog: logged.append(dialog.message))
        page.on("request", lambda request: requested.append(request.url))
        allowed.append((workspace.folder / "report/index.html").as_uri())
        page.goto(allowed[-1])
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
    """Label and every variant's answer (of the mean over seeds), by PMID, as the prediction files have them."""
    columns = {}
    for path in sorted((workspace.folder / "predictions").glob("*.csv")):
        table = pd.read_csv(path, dtype={"id": str})
        table = table[table["split"] == "test"]
        mean = table.groupby("id").mean(numeric_only=True).drop(columns="seed")
        columns[path.stem] = mean.idxmax(axis=1).str.removeprefix("p_")
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
    assert len(listed_ids(page)) == 40


def test_the_finding_table_and_pairs_are_those_of_the_comparison(reported, opened):
    workspace = reported("two labels, one seed")
    page = opened(workspace)
    comparison = json.loads((workspace.folder / "metrics/comparison.json").read_text())
    markdown = (workspace.folder / "report/report.md").read_text(encoding="utf-8")
    finding = page.locator(".finding").inner_text().replace("\u00a0", " ")
    assert f"**{finding}**" in markdown
    shown = {pair["variant"] for pair in comparison["pairs"] if pair["difference_shown"]}
    assert shown == {"prefix"} and "prefix beats base by " in finding and "prompt beats" not in finding
    results, pairs = page.locator("#results tbody tr"), page.locator("#pairs table").first.locator("tbody tr")
    for row, (name, variant) in zip(results.all()[:3], comparison["variants"].items(), strict=True):
        text = row.inner_text()
        low, high = (f"{100 * end:.1f}" for end in variant["intervals"]["accuracy"])
        assert text.startswith(name)
        assert f"{100 * variant['metrics']['accuracy']:.1f}%" in text and f"{low} to {high}" in text
        assert f"{variant['metrics']['roc_auc']:.3f}" in text
    references = [row.inner_text().split("\n")[0].strip() for row in results.all()[3:]]
    assert references == ["majority", "TF-IDF", "human, unaided", "human, aided"]
    for row, pair in zip(pairs.all(), comparison["pairs"], strict=True):
        assert pair["verdict"] in row.inner_text() and pair["verdict"] in markdown
    assert "One seed: says nothing about training variance." in page.locator("header").inner_text()
    assert "One seed: says nothing about training variance." in markdown


def test_three_labels_and_seeds_have_their_curves_and_figures(reported, opened):
    page = opened(reported("three labels, three seeds"))
    captions = page.locator("#curves figcaption").all_inner_texts()
    for label in ("yes", "no", "maybe"):
        assert any(caption.startswith(f"ROC curve: {label}") for caption in captions)
    per_seed = page.get_by_role("table", name="Each seed by itself.")
    assert per_seed.locator("tbody tr").count() == 6
    assert "no single threshold" in page.locator("#calibration").inner_text()
    assert "says nothing about training variance" not in page.locator("body").inner_text()
    assert page.locator(".matrix").first.locator("td").count() == 9


def test_what_one_variant_and_one_label_leave_out_is_said(reported, opened):
    text = opened(reported("base alone, one label in truth")).locator("body").inner_text()
    for sentence in (
        "no other variant was evaluated to compare it with",
        "there is no pair to compare",
        "there is no ROC or precision-recall curve",
        "None of the variants listed was trained",
    ):
        assert sentence in text
    assert "undefined" in text and "None\n" not in text and "nan" not in text.lower().split()


def test_text_of_the_data_file_stays_text(reported, opened):
    page = opened(reported("two labels, one seed"))
    assert page.title() == "base, prompt and prefix on google/flan-t5-small"
    shown = page.locator(".question").evaluate_all("all => all.map((element) => element.textContent)")
    assert shown[:2] == QUESTIONS[:2]
    assert shown[2] == QUESTIONS[2]
    assert shown[3] == QUESTIONS[3]
    assert page.locator(".question *, details p *, #questions-list img").count() == 0
    assert page.locator("script").count() == 1


@pytest.mark.parametrize("name", ["two labels, one seed", "three labels, three seeds"])
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
        expect(page.locator("#filters output")).to_have_text(f"{mask.sum()} of 40 questions")
    assert 0 < masks["all-wrong"].sum() < masks["some-wrong"].sum() < 40

    label.select_option("label-no")
    assert listed_ids(page) == sorted(given.index[masks["wrong-base"] & (given["label"] == "no")])
    show.select_option("")
    label.select_option("")
    text.fill("  TREATMENT 17 ")
    assert listed_ids(page) == ["3017"]
    text.fill("3021")
    assert listed_ids(page) == ["3021"]
    text.fill("no such words")
    assert listed_ids(page) == []


def test_the_keyboard_alone_filters_and_opens_an_abstract(reported, opened):
    page = opened(reported("two labels, one seed"))
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
            break
    assert order[:7] == ["A"] * 7  # the sections
    assert order[-4:] == ["answers", "label", "text", "SUMMARY"]
    assert page.get_by_label("Show").input_value() == "disagree"
    assert 0 < len(listed_ids(page)) < 40
    assert page.locator("details[open]:visible p").inner_text().startswith("<i>Methods</i> of study")


def test_without_javascript_the_questions_are_a_plain_list(reported, opened):
    page = opened(reported("two labels, one seed"), java_script_enabled=False)
    assert page.locator("#filters").is_hidden()
    assert page.locator("#questions-list > li:visible").count() == 40
    page.locator("summary").first.click()
    assert page.locator("details p").first.is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_has_the_contrast_that_wcag_aa_asks_for(reported, opened, scheme):
    page = opened(reported("three labels, three seeds"), color_scheme=scheme)
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
    page = opened(reported("three labels, three seeds"))
    figures = page.get_by_role("img")
    assert figures.count() == 2 + 3 + 3 + 2  # calibration, ROC and precision-recall of each label, training
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
    assert workspace.run("report").returncode == 0
    assert {path.name: path.read_bytes() for path in report.iterdir()} == first

    path = workspace.folder / "runtime/evaluate-prefix.json"
    path.write_text(path.read_text().replace("26.4", "77.7"))
    assert workspace.run("report").returncode == 0
    assert (report / "report.md").read_bytes() == first["report.md"]
    page, cost = (report / "index.html").read_text(), r'<section id="cost">.*?</section>'
    assert "77.7" in re.search(cost, page, re.DOTALL).group()
    assert re.sub(cost, "", page, flags=re.DOTALL) == re.sub(cost, "", first["index.html"].decode(), flags=re.DOTALL)


def test_a_missing_file_is_named(tmp_path, refused):
    workspace = Workspace(tmp_path / "workspace")
    workspace.set(evaluate__variants={"base": "models/base/config.json"}, selected="base")
    write_run(workspace.folder, ["yes", "no"], [42], ["base"])
    assert "metrics/comparison.json is missing; run `dvc repro`" in refused(workspace.run("report"))


def test_files_of_different_runs_are_refused(reported, tmp_path, refused):
    workspace = Workspace(tmp_path / "workspace")
    shutil.copytree(reported("two labels, one seed").folder, workspace.folder, dirs_exist_ok=True)
    workspace.set(evaluate__variants={"base": "models/base/config.json"}, selected="base")
    sentence = refused(workspace.run("report"))
    assert "compares base, prompt, prefix, but evaluate.variants lists base" in sentence
    shutil.copy(reported("two labels, one seed").folder / "params.yaml", workspace.folder)
    (workspace.folder / "data/split/test.csv").write_bytes((workspace.folder / "data/split/val.csv").read_bytes())
    assert "predictions/base.csv has other questions than data/split/test.csv" in refused(workspace.run("report"))


def test_screenshots_are_kept(reported, opened):
    """For people to look at; CI keeps what lies under report/."""
    folder = ROOT / "report"
    folder.mkdir(exist_ok=True)
    workspace = reported("two labels, one seed")
    for name, viewport, scheme in (("wide", WIDE, "light"), ("narrow", PHONE, "light"), ("dark", WIDE, "dark")):
        path = folder / f"screenshot-{name}.png"
        path.unlink(missing_ok=True)
        opened(workspace, viewport, color_scheme=scheme).screenshot(path=path, full_page=True)
        assert path.stat().st_size > 20_000
