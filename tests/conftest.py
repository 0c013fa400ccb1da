"""What tests of all folders share: the real records, a stage's workspace, and servers on this machine."""

import os
import pty
import shutil
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from functools import reduce
from pathlib import Path

# Tiny tensors: threads would only wait for each other. Before anything imports torch, and for every process started.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as experiments/__init__.py has it, and for its reason

import pytest
from ruamel.yaml import YAML

from tests.servers import FileHost, Hub

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def as_many_threads_as_before() -> Iterator[None]:
    """Rounding depends on the number of threads, which `load_backbone` sets for the process and all later tests."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


def path_from_environment(variable: str, what: str) -> Path:
    """The path in an environment variable; skips the test if it is not set."""
    value = os.environ.get(variable, "")
    if not value or "://" in value:
        pytest.skip(f"needs {what}: set {variable} to its path")
    path = Path(value).resolve()
    assert path.exists(), f"{variable} is {value}, which does not exist"
    return path


@pytest.fixture(scope="session")
def real_file() -> Path:
    """PubMedQA's ori_pqal.json, with test_ground_truth.json beside it."""
    return path_from_environment("PUBMEDQA_SOURCE", "PubMedQA's ori_pqal.json, with test_ground_truth.json beside it")


@pytest.fixture(scope="session")
def flan_t5_tokenizer() -> Path:
    """A folder with FLAN-T5's tokenizer."""
    return path_from_environment("FLAN_T5_TOKENIZER", "a folder with FLAN-T5's tokenizer")


def set_params(folder: Path, values: dict[str, object]) -> None:
    """Set parameters in a folder's params.yaml, {"data.source": "x"}."""
    yaml = YAML()
    params = yaml.load(folder / "params.yaml")
    for key, value in values.items():
        *groups, last = key.split(".")
        reduce(lambda group, name: group[name], groups, params)[last] = value
    yaml.dump(params, folder / "params.yaml")


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Path:
    """A checkpoint with two tiny layers and the embedded model's tokenizer."""
    from tests.tiny import save_tiny_checkpoint

    return save_tiny_checkpoint(tmp_path_factory.mktemp("tiny-t5"), ROOT / "embedded/pico-t5")


@pytest.fixture(scope="session")
def new_clone(tmp_path_factory, tiny_model):
    """Makes a clone that is set to the tiny model and a short run."""
    from tests.clone import SHORT, Clone

    def make(name: str, **changes: object) -> Clone:
        clone = Clone(tmp_path_factory.mktemp(name) / "clone")
        clone.set(SHORT | {"model.name": str(tiny_model)} | changes)
        return clone

    return make


class Workspace:
    """A folder with a params.yaml, in which stages run as DVC runs them: each in its own process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder.with_name(folder.name + "-home")
        folder.mkdir()
        self.home.mkdir()
        (folder / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())

    def set(self, **values: object) -> None:
        """Set parameters, `data__source="x"` for data.source."""
        set_params(self.folder, {key.replace("__", "."): value for key, value in values.items()})

    def start(self, *command: str, stderr: int = subprocess.PIPE, **environment: str) -> subprocess.Popen:
        # None of the caller's settings: they could lead to the network, or to another cache.
        env = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "HOME": str(self.home),
            "HF_HOME": str(self.home / "hf"),
            "NO_PROXY": "*",
            **environment,
        }
        return subprocess.Popen(
            [sys.executable, *command],
            cwd=self.folder,
            env=env,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )

    def run(self, stage: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
        """Run `python -m stages.STAGE ARGUMENTS...` to its end."""
        process = self.start("-m", f"stages.{stage}", *arguments, **environment)
        out, err = process.communicate(timeout=120)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def run_in_terminal(self, stage: str, **environment: str) -> str:
        """Run a stage whose standard error is a terminal; returns what showed there."""
        ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (24, 80))  # a terminal without rows shows no bar
        process = self.start("-m", f"stages.{stage}", stderr=theirs, **environment)
        process.communicate(timeout=120)
        os.close(theirs)
        shown = os.read(ours, 65536).decode(errors="replace")
        os.close(ours)
        return shown

    def files(self, folder: str) -> list[str]:
        """Paths of all files under a folder, hidden ones too, relative to it."""
        root = self.folder / folder
        return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "workspace")


@pytest.fixture
def file_host() -> Iterator[FileHost]:
    with FileHost() as host:
        yield host


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as hub:
        yield hub


@pytest.fixture
def refused() -> Callable[[subprocess.CompletedProcess], str]:
    """Checks that a stage failed as users should see it, and returns its one sentence."""

    def sentence(result: subprocess.CompletedProcess) -> str:
        assert result.returncode == 1, result.stdout + result.stderr
        assert "Traceback" not in result.stderr
        assert result.stdout == ""
        lines = result.stderr.strip().splitlines()
        assert len(lines) == 1 and lines[0].startswith("error: "), result.stderr
        return lines[0]

    return sentence


CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-proxy-server",
]


@pytest.fixture(scope="module")
def chromium():
    """A real browser without a network."""
    from playwright.sync_api import sync_playwright

    executable = shutil.which("chromium")
    if not executable:
        pytest.skip("chromium is not installed (Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=CHROMIUM_FLAGS)
        yield browser
        browser.close()
