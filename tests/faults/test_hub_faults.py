"""The fetch_model stage against a server that plays the Hugging Face Hub, and against local folders."""

import hashlib
import itertools
import json

import pytest

from peftqa.digest import folder_digest
from peftqa.hub import FLAN_T5_REVISIONS
from tests.servers import closed_port, truncated

NAME, COMMIT = "someone/tiny-t5", "a" * 40
WEIGHTS = bytes(range(256)) * 400
MODEL = {
    "config.json": b'{"model_type": "t5"}',
    "generation_config.json": b"{}",
    "tokenizer.json": b'{"version": "1.0"}',
    "tokenizer_config.json": b"{}",
    "special_tokens_map.json": b"{}",
    "spiece.model": b"\x0a\x0b",
    "model.safetensors": WEIGHTS,
}
NOT_WANTED = {
    "README.md": b"# tiny",
    ".gitattributes": b"",
    "pytorch_model.bin": b"\x80\x04 a pickle",
    "modeling_tiny.py": b"raise SystemExit('remote code ran')",
    "onnx/config.json": b"{}",
    "vocab.txt": b"a",
}
SHARDS = {
    "model-00001-of-00002.safetensors": WEIGHTS,
    "model-00002-of-00002.safetensors": WEIGHTS[::-1],
}
INDEX = json.dumps({"weight_map": {"a": min(SHARDS), "b": max(SHARDS)}}).encode()


def without(files, *names):
    return {name: body for name, body in files.items() if name not in names}


@pytest.fixture
def fetch(workspace, hub):
    """Runs the stage with the model of the given name and revision, the Hub being the one of this machine."""
    hub.models[NAME] = {COMMIT: MODEL | NOT_WANTED}

    def run(name=NAME, revision=COMMIT, **environment):
        workspace.set(model__name=name, model__revision=revision)
        return workspace.run("fetch_model", **{"HF_ENDPOINT": hub.url, **environment})

    return run


def base(workspace):
    return {name: (workspace.folder / "models" / name).read_bytes() for name in workspace.files("models")}


def in_base(files):
    return {f"base/{name}": body for name, body in files.items()}


def make_folder(folder, files):
    for name, body in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
    return folder


def test_only_configuration_tokenizer_and_safetensors_are_fetched(workspace, hub, fetch):
    result = fetch()
    assert result.returncode == 0, result.stderr
    assert base(workspace) == in_base(MODEL)
    assert result.stdout.count("\n") == 1 and result.stderr == ""
    asked = {path for _, path, _ in hub.requests}
    assert not any(name in path for path in asked for name in ("pytorch_model.bin", "modeling_tiny.py"))


def test_the_files_are_copies_that_do_not_lead_into_the_cache(workspace, fetch):
    fetch()
    weights = workspace.folder / "models/base/model.safetensors"
    assert not weights.is_symlink() and weights.stat().st_nlink == 1


def test_sharded_weights_are_fetched(workspace, hub, fetch):
    hub.models[NAME][COMMIT] = files = (
        without(MODEL, "model.safetensors") | SHARDS | {"model.safetensors.index.json": INDEX}
    )
    result = fetch()
    assert result.returncode == 0, result.stderr
    assert base(workspace) == in_base(files)


def test_a_missing_shard_is_reported(workspace, hub, fetch, refused):
    first, second = SHARDS
    hub.models[NAME][COMMIT] = without(MODEL, "model.safetensors") | {
        "model.safetensors.index.json": INDEX,
        first: SHARDS[first],
    }
    assert second in refused(fetch())
    assert base(workspace) == {}


def test_progress_shows_in_a_terminal(workspace, hub, fetch):
    workspace.set(model__name=NAME, model__revision=COMMIT)
    assert "Fetching 7 files" in workspace.run_in_terminal("fetch_model", HF_ENDPOINT=hub.url)


def test_a_filled_cache_needs_no_hub(workspace, hub, fetch):
    assert fetch().returncode == 0
    hub.requests.clear()
    result = fetch(HF_HUB_OFFLINE="1")
    assert result.returncode == 0, result.stderr
    hub.down = True
    assert fetch().returncode == 0
    assert fetch(HF_ENDPOINT=f"http://127.0.0.1:{closed_port()}").returncode == 0
    assert base(workspace) == in_base(MODEL)


def test_offline_with_an_empty_cache_says_so(workspace, fetch, refused):
    message = refused(fetch(HF_HUB_OFFLINE="1"))
    assert "HF_HUB_OFFLINE is set" in message and NAME in message and COMMIT in message
    assert base(workspace) == {}


def test_an_unreachable_hub_tells_the_ways_around_it(fetch, refused):
    endpoint = f"127.0.0.1:{closed_port()}"
    message = refused(fetch(HF_ENDPOINT=f"http://anna:geheim@{endpoint}"))
    assert f"http://{endpoint} cannot be reached" in message and "geheim" not in message
    assert all(way in message for way in ("HF_ENDPOINT", "HF_HUB_OFFLINE", "local folder"))


def test_a_hub_that_is_down_is_reported(hub, fetch, refused):
    hub.down = True
    assert "answers 503" in refused(fetch())


def test_an_unknown_name_is_reported(fetch, refused):
    message = refused(fetch(name="nobody/nothing"))
    assert "knows no nobody/nothing" in message and "HF_TOKEN" in message


def test_what_is_no_name_at_all_is_reported(fetch, refused):
    assert "'a/b/c' is neither" in refused(fetch(name="a/b/c"))


def test_a_wrong_revision_names_name_and_revision(fetch, refused):
    message = refused(fetch(revision="b" * 40))
    assert NAME in message and "b" * 40 in message


@pytest.mark.parametrize("revision", ["b" * 40, FLAN_T5_REVISIONS["google/flan-t5-small"]])
def test_a_wrong_revision_of_flan_t5_lists_the_right_ones(hub, fetch, refused, revision):
    hub.models["google/flan-t5-base"] = {}
    message = refused(fetch(name="google/flan-t5-base", revision=revision))
    assert f"{revision} is no revision of google/flan-t5-base" in message
    assert all(name in message and commit in message for name, commit in FLAN_T5_REVISIONS.items())


def test_a_gated_model_is_reported(workspace, hub, fetch, refused):
    hub.gated.add(NAME)
    message = refused(fetch())
    assert "gated" in message and "HF_TOKEN" in message
    assert base(workspace) == {}


def test_a_repository_without_safetensors_is_refused_before_any_download(hub, fetch, refused):
    hub.models[NAME][COMMIT] = without(MODEL, "model.safetensors") | NOT_WANTED
    message = refused(fetch())
    assert "no model.safetensors" in message and "pytorch_model.bin" in message
    assert [path for _, path, _ in hub.requests if NAME in path] == [f"/api/models/{NAME}/revision/{COMMIT}"]


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_a_model_with_code_of_its_own_is_refused(workspace, hub, fetch, refused, file):
    hub.models[NAME][COMMIT] = MODEL | {file: b'{"auto_map": {"AutoModel": "modeling_tiny.Tiny"}}'}
    assert file in refused(fetch())
    assert base(workspace) == {}


def test_a_broken_transfer_is_resumed_or_begun_again(workspace, hub, fetch):
    hub.faults = iter([truncated])
    result = fetch()
    assert result.returncode == 0, result.stderr
    assert base(workspace) == in_base(MODEL)


def test_weights_damaged_on_the_way_are_refused(workspace, hub, fetch, refused):
    hub.faults = itertools.repeat(lambda handler, body: handler.send(200, bytes(len(body))))
    message = refused(fetch())
    assert "damaged" in message and hashlib.sha256(WEIGHTS).hexdigest() in message
    assert base(workspace) == {}


def test_a_page_that_is_not_the_hub_is_reported(fetch, refused, file_host):
    file_host.files[f"/api/models/{NAME}/revision/{COMMIT}"] = b"<html>please log in</html>"
    assert "could not be fetched" in refused(fetch(HF_ENDPOINT=file_host.url))


def test_a_local_folder_is_copied_when_its_digest_is_right(workspace, hub, fetch, tmp_path):
    folder = make_folder(tmp_path / "model", MODEL | NOT_WANTED)
    result = fetch(name=str(folder), revision=folder_digest(folder))
    assert result.returncode == 0, result.stderr
    assert base(workspace) == in_base(MODEL)
    assert result.stderr == "" and hub.requests == []


def test_changed_weights_cannot_pass_for_the_old_ones(workspace, fetch, refused, tmp_path):
    folder = make_folder(tmp_path / "model", MODEL)
    digest = folder_digest(folder)
    assert fetch(name=str(folder), revision=digest).returncode == 0
    (folder / "model.safetensors").write_bytes(WEIGHTS[::-1])
    message = refused(fetch(name=str(folder), revision=digest))
    assert digest in message and folder_digest(folder) in message
    assert base(workspace) == {}


def test_an_unverified_folder_is_used_with_a_warning_that_names_its_digest(workspace, fetch, tmp_path):
    folder = make_folder(tmp_path / "model", MODEL)
    result = fetch(name=str(folder), revision=None)
    assert result.returncode == 0
    assert result.stderr.startswith("warning: ") and folder_digest(folder) in result.stderr
    assert fetch(name=str(folder), revision=folder_digest(folder)).stderr == ""
    assert base(workspace) == in_base(MODEL)


def test_a_folder_inside_the_repository_may_be_named_relative_to_it(workspace, fetch):
    make_folder(workspace.folder / "embedded/model", MODEL)
    assert fetch(name="embedded/model", revision=None).returncode == 0
    assert base(workspace) == in_base(MODEL)


def test_a_relative_folder_outside_the_repository_is_refused(workspace, fetch, refused):
    make_folder(workspace.folder.parent / "model", MODEL)
    assert "leads out of the repository" in refused(fetch(name="../model", revision=None))


def test_a_missing_folder_is_reported(fetch, refused, tmp_path):
    message = refused(fetch(name=str(tmp_path / "none"), revision=None))
    assert str(tmp_path / "none") in message and "no folder" in message


def test_a_hub_name_with_no_commit_is_told_the_commit(fetch, refused):
    message = refused(fetch(name="google/flan-t5-large", revision=None))
    assert FLAN_T5_REVISIONS["google/flan-t5-large"] in message


def test_a_local_folder_with_a_commit_is_refused(fetch, refused, tmp_path):
    folder = make_folder(tmp_path / "model", MODEL)
    message = refused(fetch(name=str(folder)))
    assert "local folder" in message and COMMIT in message and "sha256:" in message


def test_a_hub_name_with_a_digest_is_refused(fetch, refused):
    message = refused(fetch(revision="sha256:" + "0" * 64))
    assert NAME in message and "sha256:" + "0" * 64 in message


@pytest.mark.parametrize(
    ("missing", "named"),
    [
        (["model.safetensors"], "no model.safetensors"),
        (["config.json"], "no config.json"),
        (["tokenizer.json", "spiece.model"], "no tokenizer"),
    ],
)
def test_an_incomplete_folder_is_refused(fetch, refused, tmp_path, missing, named):
    folder = make_folder(tmp_path / "model", without(MODEL, *missing))
    assert named in refused(fetch(name=str(folder), revision=None))


def test_the_folder_that_the_stage_writes_is_never_its_source(workspace, fetch, refused):
    make_folder(workspace.folder / "models/base", MODEL)
    assert "this stage writes" in refused(fetch(name="models/base", revision=None))
    assert base(workspace) == in_base(MODEL)


def test_files_of_an_earlier_model_do_not_stay(workspace, fetch):
    make_folder(workspace.folder / "models/base", {"old.safetensors": b"", ".cache/x": b""})
    assert fetch().returncode == 0
    assert base(workspace) == in_base(MODEL)
