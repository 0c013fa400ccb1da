"""The page: the same answers as `peftqa ask` gives, for this machine alone, and text of others that stays text."""

import threading
import urllib.error
import urllib.request
from urllib.parse import urlencode

import pandas as pd
import pytest

from peftqa.ask.answer import Answerer
from peftqa.ask.page import bind, make_app, serve
from tests.unit.ask.asking import ABSTRACT, QUESTION, make_adapter

pytestmark = pytest.mark.slow
TESTED = pd.DataFrame(
    {
        "id": ["1", "2"],
        "question": ["is risk <b>lower</b>", "are they higher"],
        "context": ["results of a study", " ".join(["methods"] * 60)],
        "label": ["no", "yes"],
    }
)
HOSTILE = "</textarea></script><img src=x onerror=\"document.title='taken over'\"><script>alert(1)</script>{{ 7 * 7 }}"


@pytest.fixture(scope="module")
def answerers(tmp_path_factory):
    folder = make_adapter(tmp_path_factory.mktemp("run"))
    return {"base": Answerer(folder, untrained=True), "prefix": Answerer(folder)}


@pytest.fixture(scope="module")
def url(answerers):
    bound = bind(0)
    threading.Thread(target=serve, args=(make_app(answerers, TESTED), bound), daemon=True).start()
    return f"http://127.0.0.1:{bound.getsockname()[1]}/"


def fetch(url: str, form: dict | None = None, **headers: str) -> tuple[int, str]:
    data = None if form is None else urlencode(form, errors="surrogateescape").encode()
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(urllib.request.Request(url, data, headers)) as response:
            assert "default-src 'none'" in response.headers["Content-Security-Policy"]
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_each_model_has_its_answer_its_probabilities_and_whether_it_is_sure(url, answerers):
    assert "prefix: org/tiny, trained on synthetic data (synthetic questions)." in fetch(url)[1]
    status, page = fetch(url, {"question": QUESTION, "abstract": ABSTRACT})
    assert status == 200
    cards = page.split("<section")[1:]
    assert len(cards) == 2
    for card, (name, answerer) in zip(cards, answerers.items(), strict=True):
        (answer,) = answerer.answer([answerer.encode(QUESTION, ABSTRACT)])
        assert f"<h2>{name}</h2>" in card and f"{answer.label}</div>" in card
        assert f"<dd>{answer.probabilities['yes']:.3f}</dd>" in card and "Cut: nothing; all" in card
        assert f'class="answer {answer.label}"' in card and answerer.name in card
        assert ("Not known: an answer is judged by" in card) == (name == "base")


@pytest.mark.parametrize(
    ("question", "abstract", "status", "sentence"),
    [
        ("", ABSTRACT, 400, "The question is empty."),
        (QUESTION, " ", 400, "The abstract is empty."),
        (QUESTION, "a" * 1_000_000, 400, "The abstract has 1,000,000 characters; at most 100,000 are read."),
        (QUESTION, "a" * 3_000_000, 413, "That is far too long for a question and an abstract."),
        ("does " * 60, ABSTRACT, 400, "The question is too long"),
        (QUESTION, "caf\udce9", 200, ""),  # what is no UTF-8 becomes a replacement character
        ("\U0001f9ea", "\U0001f9ea \x00", 200, ""),
        ("<img src=x>", HOSTILE, 200, ""),
    ],
)
def test_any_text_is_answered_or_refused_in_one_sentence(url, question, abstract, status, sentence):
    found, page = fetch(url, {"question": question, "abstract": abstract})
    assert found == status
    assert (f'role="alert">{sentence}' in page) == (status != 200) and (page.count("<section") == 2) == (status == 200)
    assert "<script" not in page and "<img" not in page
    assert ("{{ 7 * 7 }}" in page) == (abstract == HOSTILE)


def test_only_this_machine_by_its_own_name_and_its_own_form_is_answered(url):
    form = {"question": QUESTION, "abstract": ABSTRACT}
    assert fetch(url, form, Origin="https://elsewhere.example")[0] == 403
    assert fetch(url, form, Origin="null")[0] == 403
    assert fetch(url, Host="elsewhere.example")[0] == fetch(url, form, Host="elsewhere.example")[0] == 400
    assert fetch(url + "etc/passwd")[0] == fetch(url + "../params.yaml")[0] == 404


@pytest.mark.parametrize("row", ["2", "-1", "x", "9" * 5000, "\u0661", ""])
def test_a_question_that_is_not_among_the_data_leaves_the_page_as_it_is(url, row):
    status, page = fetch(url, {"question": "", "abstract": "", "row": row, "use": ""})
    assert status == 200 and "<section" not in page and 'role="alert"' not in page


def test_typed_text_stays_as_it_was_typed_whatever_is_pressed(url):
    mine = {"question": "is  risk lower", "abstract": "mine\nin two lines"}
    for form in (mine | {"row": "1", "use": ""}, mine, mine | {"question": " " + "long " * 20_001}):
        page = fetch(url, form)[1]
        assert (
            f'value="{form["question"]}"' in page
            and ">\n\nmine\nin two lines</textarea>".replace("\n\n", "\n", 1) in page
        )
    status, page = fetch(url, mine | {"row": "1", "use": ""})
    assert status == 200 and "The text that you typed is still here" in page
    untouched = {"question": TESTED.question[0], "abstract": TESTED.context[0]}
    for form in (untouched, {"question": " ", "abstract": "\n"}):
        assert f'value="{TESTED.question[1]}"' in fetch(url, form | {"row": "1", "use": ""})[1]


WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 390, "height": 700}


@pytest.mark.parametrize("viewport", [WIDE, NARROW], ids=["wide", "narrow"])
def test_in_a_browser_a_test_question_is_taken_and_asked(chromium, url, viewport):
    page = chromium.new_page(viewport=viewport)
    said, requested = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("dialog", lambda dialog: said.append(dialog.message))
    page.on("request", lambda request: requested.append(request.url))
    page.goto(url)
    page.get_by_label("Or a question of the data").select_option(label="are they higher")
    page.get_by_role("button", name="Use this").click()
    assert page.get_by_label("Question, which").input_value() == "are they higher"
    page.get_by_label("Question, which").press("Enter")  # asks, and takes no other question
    cards = page.locator("section")
    assert cards.count() == 2 and "answer to this question: yes" in page.locator("body").inner_text()
    assert "Cut: the first" in cards.nth(1).inner_text()
    left = {round(cards.nth(i).bounding_box()["x"]) for i in range(2)}
    assert len(left) == (2 if viewport == WIDE else 1), "side by side where there is room"
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.get_by_label("Question, which").fill("<img src=x>")
    page.get_by_label("Abstract").fill(HOSTILE)
    page.get_by_role("button", name="Ask").click()
    assert page.get_by_label("Abstract").input_value() == HOSTILE and page.title() == "Ask the adapters"
    assert said == [] and all(address.startswith(url) for address in requested)
    page.close()
