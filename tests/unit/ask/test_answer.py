"""One question to one adapter: the answer that `predict` gives, or one sentence."""

import ast
import re
import shutil

import numpy as np
import pandas as pd
import pytest

from peftqa.ask.answer import ADAPTER_FILES, Answerer, find_adapter, find_base
from peftqa.errors import UserError
from peftqa.model.adapters import load_adapter
from peftqa.model.backbone import load_backbone, load_tokenizer
from peftqa.model.prompts import encode_prompts, first_token_ids
from peftqa.model.scoring import label_probabilities
from peftqa.model.task import FILE, read_task
from peftqa.report.markdown import template_environment
from tests.conftest import ROOT
from tests.unit.ask.asking import ABSTRACT, QUESTION, make_adapter, peftqa
from tests.unit.test_backbone import settings

LABELS = ["yes", "no"]
ASKED = pd.DataFrame(
    {
        "id": map(str, range(5)),
        "question": [
            "is risk higher",
            "does treatment reduce the risk in patients",
            QUESTION,
            "are results lower",
            "x",
        ],
        "context": ["results of a study", ABSTRACT, ABSTRACT * 3, "methods " * 9, "group\u00e9 \U0001f9ea <b>in</b>"],
    }
)


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    return make_adapter(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def answerer(adapter):
    return Answerer(adapter)


def predicted(adapter, trained: bool = True) -> np.ndarray:
    """What the stage `predict` computes for the questions of ASKED."""
    base = adapter.parents[3] / "base"
    tokenizer = load_tokenizer(base)
    model = load_backbone(base, settings(dtype="float32", fast=True))
    model = load_adapter(model, adapter) if trained else model
    prompts = encode_prompts(tokenizer, ASKED, read_task(adapter).template, LABELS)
    return label_probabilities(model, prompts, first_token_ids(tokenizer, LABELS), batch_size=2)


@pytest.mark.slow
def test_one_by_one_and_together_the_answers_are_those_of_predict(adapter, answerer):
    expected = predicted(adapter)
    prompts = [answerer.encode(row.question, row.context) for row in ASKED.itertuples()]
    alone = [answerer.answer([prompt])[0] for prompt in prompts]
    for answers in (alone, answerer.answer(prompts)):
        np.testing.assert_allclose([list(a.probabilities.values()) for a in answers], expected, atol=1e-5)
        assert [a.label for a in answers] == [LABELS[row.argmax()] for row in expected]
    assert expected[:, 0].std() > 1e-3, "this test needs questions that differ"


@pytest.mark.slow
def test_untrained_is_the_frozen_model_alone_which_says_nothing_of_being_sure(adapter):
    model = Answerer(adapter, untrained=True)
    answers = model.answer([model.encode(row.question, row.context) for row in ASKED.itertuples()])
    given = [list(answer.probabilities.values()) for answer in answers]
    np.testing.assert_allclose(given, predicted(adapter, trained=False), atol=1e-5)
    assert np.abs(np.array(given) - predicted(adapter)).max() > 1e-3
    assert {answer.sure for answer in answers} == {None}


@pytest.mark.slow
def test_an_answer_is_sure_if_its_confidence_reaches_that_of_the_share_and_it_is_like_training(adapter):
    for coverage in (0.2, 0.8, 1):
        model = Answerer(adapter, coverage=coverage)
        prompts = [model.encode(row.question, row.context) for row in ASKED.itertuples()]
        assert [bool(prompt.unlike) for prompt in prompts] == [False, False, True, False, True]
        for prompt, answer in zip(prompts, model.answer(prompts), strict=True):
            reached = max(answer.probabilities.values()) >= model.task.threshold(coverage)
            assert answer.sure == (reached and not prompt.unlike)
            assert reached or coverage < 1


@pytest.mark.slow
@pytest.mark.parametrize("side", ["left", "right"])
def test_what_did_not_fit_is_told(tmp_path, side):
    model = Answerer(make_adapter(tmp_path, side=side))
    words = "methods study patients group results lower risk treatment effect of the " * 3
    prompt = model.encode(QUESTION, words)
    read, cut = model.tokenizer.decode(prompt.ids), model.tokenizer.decode(prompt.cut)
    end = "first" if side == "left" else "last"
    assert model.what_was_cut(prompt) == f"the {end} {len(prompt.cut)} tokens of the abstract, to fit into 40"
    assert len(prompt.ids) == 40 and cut and QUESTION in read and "answer with yes or no" in read
    whole = " ".join(words.split())
    assert whole.startswith(cut) if side == "left" else whole.endswith(cut)
    assert not model.encode(QUESTION, ABSTRACT).cut


@pytest.mark.parametrize(
    ("question", "abstract", "message"),
    [
        ("", ABSTRACT, "the question is empty"),
        (" \n\t\u00a0", ABSTRACT, "the question is empty"),
        (QUESTION, "", "the abstract is empty"),
        (QUESTION, "a " * 500_000, "the abstract has 1,000,000 characters; at most 100,000 are read"),
        ("a" * 1_000_000, ABSTRACT, "the question has 1,000,000 characters; at most 100,000 are read"),
        ("does " * 60, ABSTRACT, "the question is too long: it and the instruction must fit into 40 tokens"),
        (QUESTION, "caf\udce9", "the abstract is not UTF-8 text"),
        (QUESTION, '{"CONTEXTS": ["a study", "cut sho', "the abstract is a list or a dictionary as a program writes"),
        ("['is it']", ABSTRACT, "the question is a list or a dictionary as a program writes it; keep only the text"),
        *((QUESTION, text, "is a list or a dictionary") for text in ("{1: 'a study'}", "{}", "[]", "[1.5, 2]")),
        *((QUESTION, text, "is a list or a dictionary") for text in ("array(['a'], dtype=object)", '[["a"], []]')),
    ],
)
def test_what_cannot_be_asked_is_refused_in_one_sentence(answerer, question, abstract, message):
    with pytest.raises(UserError) as error:
        answerer.encode(question, abstract)
    assert message in str(error.value)


@pytest.mark.parametrize(
    "abstract",
    [
        "<script>alert(1)</script>",
        "\U0001f9ea\U0001f9ea",
        "{context} {question} {0.__class__}",
        "\x1b[2J \x00 \x07",
        "</s>",
        "[Article in Polish] {a} [1, 2] a study",
        "(a) first, [b] second",
    ],
)
def test_hostile_abstracts_are_answered_like_any_text(answerer, abstract):
    (answer,) = answerer.answer([answerer.encode(QUESTION, abstract)])
    assert answer.label in LABELS and sum(answer.probabilities.values()) == pytest.approx(1)


# ---------------------------------------------------------------------------------------------------------------------
# Where the files are


def test_the_base_is_found_beside_the_adapter_and_in_folders_above_or_by_its_name(adapter, tmp_path, monkeypatch):
    base, task = adapter.parents[3] / "base", read_task(adapter)
    assert find_base(task.base_model, adapter, None) == base
    shutil.copytree(adapter, adapter.parents[4] / "release/prefix")
    assert find_base(task.base_model, adapter.parents[4] / "release/prefix", None) == base
    monkeypatch.chdir(tmp_path)
    elsewhere = shutil.copytree(adapter, tmp_path / "elsewhere")
    assert find_base(task.base_model, elsewhere, str(base)) == base
    named = task.base_model.model_copy(update={"name": str(base), "revision": None})
    assert find_base(named, elsewhere, None) == base


def test_files_of_another_model_are_never_taken_for_the_base(adapter, tmp_path):
    task = read_task(adapter)
    other = shutil.copytree(adapter.parents[3] / "base", tmp_path / "models/base")
    (other / "config.json").write_text("{}")
    elsewhere = shutil.copytree(adapter, tmp_path / "models/adapters/prefix")
    with pytest.raises(UserError, match=r"the files of org/tiny, the adapter's frozen model, are not in .*models/base"):
        find_base(task.base_model, elsewhere, str(other))
    local = task.base_model.model_copy(update={"name": "models/tiny", "revision": None})
    with pytest.raises(UserError, match=r"the files of models/tiny, .* are not in models/base beside .*; name them by"):
        find_base(local, elsewhere, None)


def test_an_adapter_is_a_folder_or_a_name_of_the_hub(adapter, tmp_path):
    assert find_adapter(str(adapter)) == adapter
    for name in ("nothing", "a/b/c", "../a", "lab/adapter@main", "lab/adapter@"):
        with pytest.raises(UserError, match=r"is not a folder, and not OWNER/NAME or OWNER/NAME@COMMIT"):
            find_adapter(name)


@pytest.mark.parametrize("file", ADAPTER_FILES)
def test_a_folder_that_lacks_a_file_is_refused_so_pickled_weights_are_never_read(adapter, tmp_path, file):
    copy = shutil.copytree(adapter, tmp_path / "copy")
    (copy / file).unlink()
    (copy / "adapter_model.bin").write_bytes(b"pickle")
    with pytest.raises(UserError, match=file.partition(".")[0]):
        Answerer(copy, base=str(adapter.parents[3] / "base"))


@pytest.mark.slow
def test_adapter_and_base_come_from_the_hub_at_their_commits_and_then_from_the_cache(adapter, tmp_path, hub):
    files = {name: {path.name: path.read_bytes() for path in folder.iterdir()} for name, folder in
             {"lab/adapter": adapter, "org/tiny": adapter.parents[3] / "base"}.items()}  # fmt: skip
    commit, base_commit = "a" * 40, "0" * 40
    hub.models = {"lab/adapter": {commit: files["lab/adapter"]}, "org/tiny": {base_commit: files["org/tiny"]}}
    arguments = ("ask", "--adapter", f"lab/adapter@{commit}", QUESTION, ABSTRACT)
    online = {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0"}
    first = peftqa(*arguments, folder=tmp_path, environment=online)
    assert first.returncode == 0, first.stderr
    assert first.stdout == peftqa("ask", "--adapter", adapter, QUESTION, ABSTRACT, folder=tmp_path).stdout
    assert peftqa(*arguments, folder=tmp_path).stdout == first.stdout
    other = peftqa("ask", "--adapter", "lab/other", QUESTION, ABSTRACT, folder=tmp_path)
    assert other.returncode == 1 and len(other.stderr.splitlines()) == 1
    assert other.stderr.startswith("error: lab/other is not a folder, and lab/other is not in the cache")


# ---------------------------------------------------------------------------------------------------------------------
# The command


@pytest.mark.slow
def test_the_command_prints_answer_probabilities_sureness_and_what_was_cut(adapter, answerer, tmp_path):
    (answer,) = answerer.answer([answerer.encode(QUESTION, ABSTRACT)])
    ways = {
        "arguments": {"arguments": (QUESTION, ABSTRACT)},
        "abstract on standard input": {"arguments": (QUESTION,), "input": ABSTRACT},
        "both on standard input": {"arguments": (), "input": f"\n{QUESTION}\n{ABSTRACT}\n"},
    }
    for way, options in ways.items():
        result = peftqa("ask", "--adapter", adapter, *options.pop("arguments"), folder=tmp_path, **options)
        assert result.returncode == 0 and result.stderr == "", (way, result.stderr)
        lines = dict(line.split(maxsplit=1) for line in result.stdout.replace("sure enough", "sure").splitlines())
        assert lines["answer"] == answer.label
        yes, no = (f"{value:.6f}" for value in answer.probabilities.values())
        assert lines["probabilities"] == f"yes {yes}, no {no}"
        assert lines["sure"].startswith("yes: " if answer.sure else "no, ask a person: ")
        assert lines["cut"].startswith("nothing; all ")
        assert lines["model"] == "org/tiny, trained on synthetic data (synthetic questions)"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((QUESTION, ""), "error: the abstract is empty"),
        (("--csv", "a.csv"), "--csv and --out go together"),
        ((QUESTION, ABSTRACT, "--coverage", "1.5"), "--coverage is a share above 0"),
        ((QUESTION, "--csv", "a.csv", "--out", "b.csv"), "give either a question or --csv"),
    ],
)
def test_a_command_that_cannot_be_answered_is_refused_before_a_model_is_loaded(adapter, tmp_path, arguments, message):
    folder = shutil.copytree(adapter, tmp_path / "no-base")  # loading would fail
    assert (folder / FILE).is_file()
    result = peftqa("ask", "--adapter", folder, *arguments, folder=tmp_path)
    assert result.returncode in (1, 2) and message in result.stderr and "Traceback" not in result.stderr
    assert result.stdout == ""


def test_what_others_wrote_into_an_adapter_reaches_no_terminal_as_it_is(adapter, tmp_path):
    folder = shutil.copytree(adapter, tmp_path / "no-base")
    text = (folder / FILE).read_text().replace("org/tiny", "\\u001b[2J\\u001b]0;title")
    (folder / FILE).write_text(text.replace("0" * 40, "sha256:" + "0" * 64))
    result = peftqa("ask", "--adapter", folder, QUESTION, ABSTRACT, folder=tmp_path)
    assert result.returncode == 1
    assert result.stderr.startswith("error: the files of [2J ]0;title, the adapter's frozen model")
    assert result.stderr.strip().isprintable()


CARD = (ROOT / "peftqa/report/templates/card.md.j2").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_code_on_the_model_card_gives_the_answer_that_ask_gives(tmp_path, capsys):
    adapter = make_adapter(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", CARD, re.DOTALL)
    code = template_environment().from_string(code).render(adapter={"method": "kv_prefix"}, on_hub=False)
    code = code.replace("FOLDER OF THE MODEL", str(tmp_path / "models/base")).replace("FOLDER", str(adapter))
    code = re.sub(r'"question": ".*?"', f'"question": "{QUESTION}"', code)
    exec(re.sub(r'"context": ".*?"', f'"context": "{ABSTRACT}"', code), {})
    model = Answerer(adapter)
    (answer,) = model.answer([model.encode(QUESTION, ABSTRACT)])
    assert ast.literal_eval(capsys.readouterr().out.strip()) == pytest.approx(answer.probabilities, abs=1e-5)
