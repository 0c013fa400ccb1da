"""The download stage against a real HTTP server that misbehaves, and against local copies."""

import hashlib
import itertools
import os
import signal
import threading

import pytest

from tests.servers import endless, status, to_itself, truncated

RECORDS, TEST_IDS = b'{"1": "records"}' * 20_000, b'{"1": "yes"}'
PATH, IDS_PATH = "/data/ori_pqal.json", "/data/test_ground_truth.json"
FETCHED = {"ori_pqal.json": RECORDS, "test_ground_truth.json": TEST_IDS}


def sha256(body):
    return hashlib.sha256(body).hexdigest()


@pytest.fixture(autouse=True)
def known_files(workspace, file_host):
    """The host serves both files, and params.yaml names their digests."""
    file_host.files = {PATH: RECORDS, IDS_PATH: TEST_IDS}
    workspace.set(
        data__source=file_host.url + PATH, data__sha256=sha256(RECORDS), data__test_ids_sha256=sha256(TEST_IDS)
    )


@pytest.fixture
def copy(tmp_path):
    """A folder with a true copy of both files."""
    folder = tmp_path / "copy"
    folder.mkdir()
    for name, body in FETCHED.items():
        (folder / name).write_bytes(body)
    return folder


def raw(workspace):
    return {name: (workspace.folder / "data/raw" / name).read_bytes() for name in workspace.files("data/raw")}


def test_both_files_come_from_the_address_in_params(workspace):
    result = workspace.run("download", PUBMEDQA_SOURCE="")
    assert raw(workspace) == FETCHED
    assert result.stdout.count("\n") == 1 and result.stderr == ""


def test_the_environment_overrides_and_its_query_string_stays_secret(workspace, file_host):
    workspace.set(data__source="http://127.0.0.1:1/never-asked.json")
    result = workspace.run("download", PUBMEDQA_SOURCE=f"{file_host.url}{PATH}?key=geh eim")
    assert file_host.requests == [("GET", PATH, "key=geh%20eim"), ("GET", IDS_PATH, "key=geh%20eim")]
    assert raw(workspace) == FETCHED and "eim" not in result.stdout + result.stderr


def test_a_progress_bar_shows_in_a_terminal(workspace):
    assert "100%" in workspace.run_in_terminal("download")


def test_a_fault_that_passes_is_tried_again(workspace, file_host):
    file_host.faults[PATH] = iter([status(500), truncated])
    assert workspace.run("download").returncode == 0
    assert raw(workspace) == FETCHED


@pytest.mark.parametrize(
    ("path", "fault", "reason"),
    [
        (PATH, status(404), "it answers with HTTP status 404"),
        (IDS_PATH, status(503), "it answers with HTTP status 503"),
        (PATH, truncated, "the connection broke off"),
        (IDS_PATH, status(200), sha256(b"<html>not the file</html>")),
        (PATH, to_itself, "it answers with HTTP status 302"),
    ],
)
def test_a_fault_of_either_file_is_reported_and_leaves_neither(workspace, file_host, refused, path, fault, reason):
    file_host.faults[path] = itertools.repeat(fault)
    source = file_host.url.replace("//", "//anna:geheim@") + PATH + "?token=geheim"
    message = refused(workspace.run("download", PUBMEDQA_SOURCE=source))
    assert file_host.url.removeprefix("http://") + path in message and reason in message
    assert "PUBMEDQA_SOURCE" in message and "anna" not in message and "geheim" not in message
    assert workspace.files("data") == []


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (f"http://anna:geheim@127.0.0.1:1{PATH}?a=geheim", "(the connection to it fails); check the network"),
        ("http://a:geheim@nowhere.invalid/x.json", "(the connection to it fails); check the network"),
        ("http://a:ge/heim@b/x.json?a=ge heim", "Failed to parse"),
        ("ftp://a:geheim@b/c?a=ge heim", "No connection adapters"),
    ],
)
def test_an_address_that_cannot_be_asked_is_named_without_the_password(workspace, refused, source, reason):
    message = refused(workspace.run("download", PUBMEDQA_SOURCE=source))
    assert source.split("@")[1].split("?")[0] in message and "heim" not in message and reason in message


def test_a_proxy_that_does_not_answer_is_not_blamed_on_the_address(workspace, refused):
    proxy = "anna:geheim@127.0.0.1:1"
    message = refused(workspace.run("download", HTTP_PROXY=proxy, NO_PROXY=""))
    assert "proxy" in message and "geheim" not in message
    assert workspace.run("download", HTTP_PROXY=proxy, NO_PROXY="127.0.0.1").returncode == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_download_that_is_ended_early_leaves_no_file(workspace, file_host, number):
    begun = threading.Event()
    file_host.faults[PATH] = iter([endless(0.1, b"0", begun)])
    process = workspace.start("-m", "stages.download")
    assert begun.wait(60)
    process.send_signal(number)
    _, message = process.communicate(timeout=60)
    assert process.returncode == -number and message.count("\n") == (number == signal.SIGINT)
    assert not FETCHED.keys() & {path.name for path in (workspace.folder / "data/raw").iterdir()}
    assert workspace.run("download").returncode == 0
    assert raw(workspace) == FETCHED


def test_a_local_copy_needs_no_server(workspace, file_host, copy):
    assert workspace.run("download", PUBMEDQA_SOURCE=str(copy / "ori_pqal.json")).returncode == 0
    assert raw(workspace) == FETCHED and file_host.requests == []
    copy.rename(workspace.folder / "embedded")
    workspace.set(data__source="embedded/ori_pqal.json")
    assert workspace.run("download").returncode == 0
    assert raw(workspace) == FETCHED and file_host.requests == []


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("{}/none.json", "No such file"),
        ("{}/alone/ori_pqal.json", "alone/test_ground_truth.json"),
        ("{}", "not a regular file"),
        ("{}/test_ground_truth.json", sha256(TEST_IDS)),
        ("/dev/zero", "not a regular file"),
    ],
)
def test_a_local_file_that_is_not_a_true_copy_is_refused(workspace, refused, copy, source, reason):
    (copy / "alone").mkdir()
    os.link(copy / "ori_pqal.json", copy / "alone/ori_pqal.json")
    assert workspace.run("download").returncode == 0  # no file of an earlier run stays
    assert reason in refused(workspace.run("download", PUBMEDQA_SOURCE=source.format(copy)))
    assert workspace.files("data") == []


def test_a_relative_path_that_experiments_could_not_use_is_refused(workspace, refused):
    message = refused(workspace.run("download", PUBMEDQA_SOURCE="../ori_pqal.json"))
    assert "PUBMEDQA_SOURCE: '../ori_pqal.json' is outside the repository" in message
    workspace.set(data__source="../ori_pqal.json")
    assert "data.source: '../ori_pqal.json' is outside the repository" in refused(workspace.run("download"))
