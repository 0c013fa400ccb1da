"""The download stage against a real HTTP server that misbehaves."""

import hashlib
import itertools
import signal
import threading

import pytest

from tests.servers import closed_port, status, truncated

RECORDS = b'{"1": "records"}' * 20_000
TEST_IDS = b'{"1": "yes"}'
PATH, IDS_PATH = "/data/ori_pqal.json", "/data/test_ground_truth.json"


@pytest.fixture(autouse=True)
def known_files(workspace, file_host):
    """The host serves both files, and params.yaml names their digests."""
    file_host.files = {PATH: RECORDS, IDS_PATH: TEST_IDS}
    workspace.set(
        data__source=file_host.url + PATH,
        data__sha256=hashlib.sha256(RECORDS).hexdigest(),
        data__test_ids_sha256=hashlib.sha256(TEST_IDS).hexdigest(),
    )


def raw(workspace):
    return {name: (workspace.folder / "data/raw" / name).read_bytes() for name in workspace.files("data/raw")}


def test_both_files_come_from_the_address_in_params(workspace):
    result = workspace.run("download")
    assert result.returncode == 0, result.stderr
    assert raw(workspace) == {"ori_pqal.json": RECORDS, "test_ground_truth.json": TEST_IDS}
    assert result.stdout.count("\n") == 1 and result.stderr == ""


def test_the_sibling_is_asked_for_with_the_same_query_string(workspace, file_host):
    workspace.set(data__source="http://127.0.0.1:1/never-asked.json")
    result = workspace.run("download", PUBMEDQA_SOURCE=f"{file_host.url}{PATH}?key=geheim")
    assert result.returncode == 0, result.stderr
    assert file_host.requests == [("GET", PATH, "key=geheim"), ("GET", IDS_PATH, "key=geheim")]
    assert "geheim" not in result.stdout + result.stderr


def test_a_progress_bar_shows_in_a_terminal(workspace):
    assert "100%" in workspace.run_in_terminal("download")


@pytest.mark.parametrize("code", [404, 403])
def test_an_error_page_is_no_file_and_is_asked_for_once(workspace, file_host, refused, code):
    file_host.faults[PATH] = itertools.repeat(status(code))
    message = refused(workspace.run("download"))
    assert file_host.url + PATH in message and str(code) in message and "PUBMEDQA_SOURCE" in message
    assert workspace.files("data") == []
    assert len(file_host.requests) == 1


def test_a_server_error_that_passes_is_tried_again(workspace, file_host):
    file_host.faults[PATH] = iter([status(500)])
    result = workspace.run("download")
    assert result.returncode == 0, result.stderr
    assert raw(workspace)["ori_pqal.json"] == RECORDS
    assert [path for _, path, _ in file_host.requests] == [PATH, PATH, IDS_PATH]


def test_a_server_error_that_stays_is_reported(workspace, file_host, refused):
    file_host.faults[PATH] = itertools.repeat(status(503))
    message = refused(workspace.run("download"))
    assert "503" in message and file_host.url + PATH in message
    assert workspace.files("data") == []


def test_a_truncated_body_leaves_nothing(workspace, file_host, refused):
    file_host.faults[PATH] = itertools.repeat(truncated)
    message = refused(workspace.run("download"))
    assert "broke before the whole file" in message and file_host.url + PATH in message
    assert workspace.files("data") == []


def test_wrong_bytes_are_refused_with_both_digests(workspace, file_host, refused):
    file_host.files[PATH] = wrong = RECORDS.replace(b"1", b"2")
    message = refused(workspace.run("download"))
    assert hashlib.sha256(wrong).hexdigest() in message and hashlib.sha256(RECORDS).hexdigest() in message
    assert workspace.files("data") == []


def test_a_fault_of_the_second_file_leaves_neither(workspace, file_host, refused):
    file_host.files[IDS_PATH] = b"{}"
    assert IDS_PATH in refused(workspace.run("download"))
    assert workspace.files("data") == []


def test_files_of_an_earlier_run_do_not_outlive_a_failure(workspace, file_host, refused):
    assert workspace.run("download").returncode == 0
    file_host.files.clear()
    refused(workspace.run("download"))
    assert workspace.files("data") == []


def test_an_unreachable_host_is_named_without_the_password(workspace, refused):
    address = f"127.0.0.1:{closed_port()}{PATH}"
    message = refused(workspace.run("download", PUBMEDQA_SOURCE=f"http://anna:geheim@{address}?token=geheim"))
    assert f"http://{address}: the server could not be reached" in message
    assert "anna" not in message and "geheim" not in message


def test_a_killed_download_leaves_no_file_and_the_next_run_no_remains(workspace, file_host):
    sent, let_go = threading.Event(), threading.Event()

    def stalled(handler, body):
        handler.send(200, body[: len(body) // 2], length=len(body))
        sent.set()
        let_go.wait(60)

    file_host.faults[PATH] = iter([stalled])
    process = workspace.start("-m", "stages.download")
    try:
        assert sent.wait(60)
        partial = workspace.folder / "data/raw/.partial"
        while not any(path.stat().st_size for path in partial.glob("*")):
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.communicate()
    finally:
        let_go.set()
    assert not (workspace.folder / "data/raw/ori_pqal.json").exists()
    assert not (workspace.folder / "data/raw/test_ground_truth.json").exists()
    assert workspace.run("download").returncode == 0
    assert raw(workspace) == {"ori_pqal.json": RECORDS, "test_ground_truth.json": TEST_IDS}


def test_a_local_copy_needs_no_server(workspace, file_host, tmp_path):
    (tmp_path / "copy.json").write_bytes(RECORDS)
    (tmp_path / "test_ground_truth.json").write_bytes(TEST_IDS)
    result = workspace.run("download", PUBMEDQA_SOURCE=str(tmp_path / "copy.json"))
    assert result.returncode == 0, result.stderr
    assert raw(workspace) == {"ori_pqal.json": RECORDS, "test_ground_truth.json": TEST_IDS}
    assert file_host.requests == []


def test_the_source_may_be_a_path_inside_the_repository(workspace):
    folder = workspace.folder / "embedded"
    folder.mkdir()
    (folder / "ori_pqal.json").write_bytes(RECORDS)
    (folder / "test_ground_truth.json").write_bytes(TEST_IDS)
    workspace.set(data__source="embedded/ori_pqal.json")
    assert workspace.run("download").returncode == 0
    assert raw(workspace) == {"ori_pqal.json": RECORDS, "test_ground_truth.json": TEST_IDS}


def test_a_local_copy_without_its_sibling_is_refused(workspace, refused, tmp_path):
    (tmp_path / "ori_pqal.json").write_bytes(RECORDS)
    message = refused(workspace.run("download", PUBMEDQA_SOURCE=str(tmp_path / "ori_pqal.json")))
    assert f"{tmp_path / 'test_ground_truth.json'}: No such file" in message
    assert workspace.files("data") == []


def test_a_folder_is_no_copy(workspace, refused, tmp_path):
    assert f"{tmp_path}: Is a directory" in refused(workspace.run("download", PUBMEDQA_SOURCE=str(tmp_path)))


@pytest.mark.parametrize("source", ["ori_pqal.json", "./copies/ori_pqal.json", "../ori_pqal.json"])
def test_a_relative_override_is_refused_because_experiments_run_elsewhere(workspace, refused, source):
    message = refused(workspace.run("download", PUBMEDQA_SOURCE=source))
    assert repr(source) in message and "temporary folder" in message and "absolute path" in message


def test_a_source_outside_the_repository_is_refused(workspace, refused):
    workspace.set(data__source="../ori_pqal.json")
    assert "leads out of the repository" in refused(workspace.run("download"))


def test_other_schemes_than_http_are_refused(workspace, refused):
    assert "only http and https" in refused(workspace.run("download", PUBMEDQA_SOURCE="ftp://example.org/x.json"))
