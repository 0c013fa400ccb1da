"""The fetch_model stage against a server that answers like the Hugging Face Hub, and against local folders."""

import itertools
import json
import signal
import threading

import numpy as np
import pytest
from safetensors.numpy import save
from tokenizers import Tokenizer, models

from peftqa.data.digest import folder_digest
from tests.servers import endless, truncated

NAME, COMMIT = "someone/tiny-t5", "a" * 40
CONFIG = {"model_type": "t5", "vocab_size": 40, "d_model": 16, "tie_word_embeddings": False}
TENSORS = {name: np.full((40, 16), 0.5, np.float32) for name in ("shared.weight", "lm_head.weight")}
WEIGHTS = save(TENSORS)
MODEL = {
    "config.json": json.dumps(CONFIG).encode(),
    "tokenizer.json": Tokenizer(models.WordLevel({"<unk>": 0, "</s>": 1, "yes": 2, "no": 3})).to_str().encode(),
    "tokenizer_config.json": b"{}",
    "spiece.model": b"\x0a\x0b",
    "model.safetensors": WEIGHTS,
}
NOT_WANTED = {
    "README.md": b"# tiny",
    "pytorch_model.bin": b"\x80\x04 a pickle",
    "modeling_tiny.py": b"raise SystemExit('remote code ran')",
    "onnx/config.json": b"{}",
}
SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
PLACES = {name: SHARDS[row % 2] for row, name in enumerate(TENSORS)}
INDEX = {"model.safetensors.index.json": json.dumps({"weight_map": PLACES}).encode()}


def without(*names):
    return {name: body for name, body in MODEL.items() if name not in names}


SHARDED = (
    without("model.safetensors")
    | INDEX
    | {shard: save({name: TENSORS[name] for name in TENSORS if PLACES[name] == shard}) for shard in SHARDS}
)


@pytest.fixture
def fetch(workspace, hub):
    """Runs the stage with the model of the given name and revision, the Hub being the one of this machine."""
    hub.models[NAME] = {COMMIT: MODEL | NOT_WANTED}

    def run(name=NAME, revision=COMMIT, **environment):
        workspace.set(model__name=str(name), model__revision=revision)
        return workspace.run("fetch_model", **{"HF_ENDPOINT": hub.url, **environment})

    return run


@pytest.fixture
def folder(tmp_path):
    return make_folder(tmp_path / "model", MODEL | NOT_WANTED)


def make_folder(folder, files):
    for name, body in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(body)
    return folder


def base(workspace):
    """The files that the stage left, none of them a link into the cache."""
    assert not any(path.is_symlink() for path in workspace.folder.glob("models/base/*"))
    names = workspace.files("models")
    return {name.removeprefix("base/"): (workspace.folder / "models" / name).read_bytes() for name in names}


@pytest.mark.parametrize("model", [MODEL, SHARDED])
def test_configuration_tokenizer_and_safetensors_replace_an_older_model(workspace, hub, fetch, model):
    make_folder(workspace.folder / "models/base", {"old.safetensors": b"", ".cache/x": b""})
    hub.models[NAME][COMMIT] = model | NOT_WANTED
    result = fetch()
    assert base(workspace) == model
    assert result.stdout.count("\n") == 1 and result.stderr == ""
    assert not any(name in path for _, path, _ in hub.requests for name in ("pytorch_model.bin", "modeling_tiny.py"))


def test_progress_shows_in_a_terminal(workspace, hub, fetch):
    workspace.set(model__name=NAME, model__revision=COMMIT)
    assert "Fetching 5 files" in workspace.run_in_terminal("fetch_model", HF_ENDPOINT=hub.url)


def test_a_filled_cache_replaces_the_hub(workspace, hub, fetch):
    assert fetch().returncode == 0
    assert fetch(HF_HUB_OFFLINE="1").returncode == 0
    assert fetch(HF_ENDPOINT="http://127.0.0.1:1").returncode == 0
    hub.down = True
    assert fetch().returncode == 0
    assert base(workspace) == MODEL


def test_a_broken_transfer_is_resumed_or_begun_again(workspace, hub, fetch):
    hub.faults = iter([truncated])
    assert fetch().returncode == 0
    assert base(workspace) == MODEL


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"HF_HUB_OFFLINE": "1"}, "(HF_HUB_OFFLINE is set)"),
        ({"HF_ENDPOINT": "http://anna:geheim@127.0.0.1:1"}, "http://***@127.0.0.1:1 does not give it (the connection"),
        ({"HF_ENDPOINT": "ftp://a:geheim@hub"}, "ftp://***@hub does not give it (Request URL has an unsupported"),
        ({"name": "nobody/nothing"}, "(it answers with HTTP status 401 RepoNotFound)"),
        ({"name": "someone/gated"}, "(it answers with HTTP status 403 GatedRepo)"),
        ({"revision": "b" * 40}, "(it answers with HTTP status 404 RevisionNotFound)"),
    ],
)
def test_a_model_that_the_hub_does_not_give_is_reported(workspace, hub, fetch, refused, asked, reason):
    hub.models["someone/gated"] = hub.models[NAME]
    hub.gated.add("someone/gated")
    message = refused(fetch(**asked))
    assert reason in message and asked.get("name", NAME) in message and asked.get("revision", COMMIT) in message
    assert all(way in message for way in ("is there a network?", "HF_TOKEN", "HF_HUB_OFFLINE", "local folder"))
    assert "geheim" not in message and base(workspace) == {}


def test_a_token_that_cannot_be_sent_is_named(fetch, refused):
    message = refused(fetch(HF_TOKEN="hf_ä"))
    assert "HF_TOKEN" in message and "hf_ä" not in message


def test_on_ctrl_c_a_slow_transfer_ends_at_once_and_the_next_one_goes_on(workspace, hub, fetch):
    begun = threading.Event()
    hub.faults = iter([endless(0.05, b"0", begun)])
    workspace.set(model__name=NAME, model__revision=COMMIT)
    process = workspace.start("-m", "stages.fetch_model", HF_ENDPOINT=hub.url)
    assert begun.wait(60)
    process.send_signal(signal.SIGINT)
    _, message = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT and message.count("\n") == 1 and "interrupted" in message
    assert base(workspace) == {}
    assert fetch().returncode == 0
    assert base(workspace) == MODEL


def test_a_cache_that_cannot_be_written_is_not_blamed_on_the_model(workspace, fetch, refused):
    message = refused(fetch(HF_HOME="/proc/none"))
    assert "/proc/none" in message and "model.revision" not in message
    assert base(workspace) == {}


def test_weights_damaged_on_the_way_are_refused(workspace, hub, fetch, refused):
    hub.faults = itertools.repeat(lambda handler, body: handler.send(200, bytes(len(body))))
    assert "damaged" in refused(fetch())
    assert base(workspace) == {}


AUTO_MAP = b'{"auto_map": {"AutoModel": "modeling_tiny.Tiny"}}'


@pytest.mark.parametrize(
    ("from_hub", "files", "reason"),
    [
        (True, without("model.safetensors") | NOT_WANTED, "lacks model.safetensors"),
        (False, without("tokenizer.json"), "lacks tokenizer.json"),
        (True, without("model.safetensors") | INDEX | {SHARDS[0]: b""}, f"lacks {SHARDS[1]}"),
        (False, MODEL | {"config.json": b"[1]"}, "broken JSON"),
        (True, MODEL | {"tokenizer_config.json": AUTO_MAP}, "its tokenizer_config.json asks"),
    ],
)
def test_an_incomplete_model_and_one_with_code_are_refused(
    workspace, hub, fetch, refused, tmp_path, from_hub, files, reason
):
    hub.models[NAME][COMMIT] = files
    folder = make_folder(tmp_path / "broken", files)
    message = refused(fetch() if from_hub else fetch(folder, None))
    assert reason in message and (NAME if from_hub else str(folder)) in message
    assert base(workspace) == {}
    assert not any("pytorch_model.bin" in path for _, path, _ in hub.requests)


def test_a_local_folder_is_copied_if_its_digest_is_right(workspace, hub, fetch, refused, folder):
    digest = folder_digest(folder)
    assert fetch(folder, digest).stderr == ""
    assert base(workspace) == MODEL and hub.requests == []
    (folder / "model.safetensors").write_bytes(WEIGHTS[::-1])
    message = refused(fetch(folder, digest))
    assert digest in message and folder_digest(folder) in message
    assert base(workspace) == {}


def test_an_unverified_folder_inside_the_repository_is_used_with_a_warning_that_names_its_digest(workspace, fetch):
    folder = make_folder(workspace.folder / "embedded/model", MODEL)
    result = fetch("embedded/model", None)
    assert result.stderr.startswith("warning: ") and folder_digest(folder) in result.stderr
    assert base(workspace) == MODEL


@pytest.mark.parametrize(
    ("name", "revision", "reason"),
    [
        ("../model", None, "is outside the repository"),
        ("models/base", None, "this stage writes"),
        (NAME, "sha256:" + "0" * 64, "40 hexadecimal digits"),
        ("/none", None, "No such file or directory: '/none'"),
        ("{}", COMMIT, "leave model.revision empty"),
        ("a/b/c", COMMIT, "leave model.revision empty"),
    ],
)
def test_a_name_and_revision_that_do_not_go_together_are_refused(fetch, refused, folder, name, revision, reason):
    message = refused(fetch(name.format(folder), revision))
    assert name.format(folder) in message and reason in message
