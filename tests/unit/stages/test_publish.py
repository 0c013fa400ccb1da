"""What is made ready for the Hub: one training of each adapter, and a card that says what it is worth."""

import json

import pytest
from huggingface_hub import ModelCard

from peftqa.model.task import WEIGHTS, weights_digest, write_task
from tests.finished_run import run_stages, write_json, write_run
from tests.unit.test_task import task

LABELS, VARIANTS = ["yes", "no"], ["majority", "base", "prompt", "prefix"]
FILES = ["README.md", "adapter_config.json", "adapter_model.safetensors", "task.json"]


@pytest.fixture
def finished(workspace):
    """A finished run of two seeds; `run` publishes it anew."""

    def make(seeds=(7, 42), **parameters):
        workspace.set(train__seeds=list(seeds), evaluate__variants=VARIANTS, compare__resamples=100, **parameters)
        write_run(workspace.folder, LABELS, list(seeds), VARIANTS)
        for name in ("prompt", "prefix"):
            for seed in seeds:
                folder = workspace.folder / f"models/adapters/{name}/fold-0/seed-{seed}"
                for file in FILES[1:]:
                    write_json(folder / file, {name: seed})
                write_task(folder, task(weights=weights_digest(folder)))
        run_stages(workspace.folder, VARIANTS, ["compare", "publish"])
        return workspace

    return make


def card(workspace, name: str) -> ModelCard:
    return ModelCard.load(workspace.folder / f"release/{name}/README.md")


@pytest.mark.slow
def test_the_training_with_the_lowest_validation_log_loss_is_published_and_the_same_bytes_again(finished):
    workspace = finished()
    assert workspace.files("release") == [f"{name}/{file}" for name in ("prefix", "prompt") for file in FILES]
    before = {file: (workspace.folder / "release" / file).read_bytes() for file in workspace.files("release")}
    (workspace.folder / "release/prefix/left-over").touch()
    result = workspace.run("publish")
    assert result.returncode == 0, result.stderr
    assert {file: (workspace.folder / "release" / file).read_bytes() for file in workspace.files("release")} == before
    for name in ("prompt", "prefix"):
        (chosen,) = json.loads(before[f"{name}/adapter_config.json"]).values()
        assert chosen == 42  # 0.502 against 0.507
        assert f"fold 0, seed {chosen}: of 2 trainings the one with the lowest" in card(workspace, name).text


@pytest.mark.slow
def test_the_card_of_real_data_names_model_data_licences_and_results_with_intervals(finished):
    workspace = finished()
    comparison = json.loads((workspace.folder / "comparison/comparison.json").read_text())
    for name, method in {"prompt": "prompt_tuning", "prefix": "kv_prefix"}.items():
        made = card(workspace, name)
        assert made.data.base_model == "google/flan-t5-small" and made.data.library_name == "peft"
        assert (made.data.license, made.data.datasets) == ("mit", ["qiaojin/PubMedQA"]) and method in made.data.tags
        text = " ".join(made.text.split())
        metrics, intervals = (comparison["variants"][name][key] for key in ("metrics", "intervals"))
        low, high = (f"{100 * end:.1f}" for end in intervals["accuracy"])
        assert f", mean of 2 trainings | {100 * metrics['accuracy']:.1f}% ({low} to {high}) |" in text
        for words in (
            *("Not for clinical use", "0fc9ddf78a1e988dac52e2dac162b0ede4fd74ab", "task.json", "on its left"),
            *("PubMedQA's labelled data are MIT", "FLAN-T5's weights are Apache-2.0", "means over the 2 trainings"),
        ):
            assert words in text, words
        assert "ynthetic" not in made.content
        assert ("KeyError: 'KV_PREFIX'" in text) == (name == "prefix")
        verdicts = [pair["verdict"] for pair in comparison["pairs"] if name in pair.values()]
        assert verdicts and all(f"\n- {verdict}: " in made.text for verdict in verdicts)


@pytest.mark.slow
def test_the_card_of_a_demonstration_says_synthetic_and_how_to_load_a_model_that_is_not_on_the_hub(finished):
    local = {"model__name": "embedded/pico-t5", "model__revision": f"sha256:{'1' * 64}"}
    made = card(finished((42,), data__name="synthetic abstracts", **local), "prefix")
    assert made.data.base_model is None and made.data.datasets is None and "synthetic" in made.data.tags
    assert "**Synthetic.**" in made.text and "--base FOLDER" in made.text and "embedded/pico-t5" in made.text
    assert 'base, revision = "FOLDER OF THE MODEL", None' in made.text
    assert made.text.lstrip().splitlines()[0].endswith(": answers to questions about synthetic abstracts")
    assert "PubMedQA's labelled data" not in made.text and "Apache" not in made.text


@pytest.mark.slow
def test_an_adapter_that_is_not_compared_is_not_published_and_a_missing_one_is_named(finished, refused):
    workspace = finished((42,))
    stale = workspace.folder / "models/adapters/prefix/fold-3/seed-1/task.json"
    write_json(stale, {})
    workspace.set(evaluate__variants=["majority", "base", "prompt"], selected="base")
    run_stages(workspace.folder, [], ["compare", "publish"])
    assert {path.split("/")[0] for path in workspace.files("release")} == {"prompt"} and not stale.exists()
    folder = workspace.folder / "models/adapters/prompt/fold-0/seed-42"
    weights = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(weights[:-1] + b"x")
    assert f"{WEIGHTS} is damaged" in refused(workspace.run("publish"))
    (folder / WEIGHTS).write_bytes(weights)
    folder.rename(workspace.folder / "elsewhere")
    assert "models/adapters/prompt/fold-0/seed-42 is missing; run `dvc repro`" in refused(workspace.run("publish"))
