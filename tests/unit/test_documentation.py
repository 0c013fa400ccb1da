"""What a reader of the documents follows or types exists: links, paths, make targets, modules, options, parameters."""

import re
import subprocess
from pathlib import Path

import pytest

from peftqa.config.params import Params
from tests.conftest import ROOT

MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
FOLDERS = "benchmarks|cluster|data|docs|embedded|experiments|peftqa|stages|tests"


def listed(*patterns: str) -> list[Path]:
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *patterns]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    return [ROOT / name for name in names if name and (ROOT / name).exists()]


PAGES = listed("*.md")
# The changelog also names what there was in earlier versions.
CURRENT = [page for page in PAGES if page.name != "CHANGELOG.md"]
all_pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
current_pages = pytest.mark.parametrize("page", CURRENT, ids=lambda page: str(page.relative_to(ROOT)))


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to a page's headings."""
    headings = re.findall(r"^#+ (.*)$", text_of(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}


def is_output(path: str) -> bool:
    return not subprocess.run(["git", "check-ignore", "--quiet", path], cwd=ROOT).returncode


@all_pages
def test_links_lead_to_files_and_headings(page: Path):
    for link in re.findall(r"\]\(([^)\s]+)\)", text_of(page)):
        if not re.match(r"https?:", link):
            path, _, anchor = link.partition("#")
            target = page.parent / path if path else page
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


@current_pages
def test_paths_exist_or_are_outputs(page: Path):
    for path in re.findall(rf"`((?:{FOLDERS})/[\w./-]*)`", text_of(page)):
        placeholder = re.search(r"\b[A-Z]+\b", path)
        assert placeholder or (ROOT / path).exists() or is_output(path), path


@current_pages
def test_make_commands_have_targets_and_experiments(page: Path):
    targets = set(re.findall(r"^([a-z]+):", MAKEFILE, re.MULTILINE))
    commands = re.findall(r"(?:`|^)(?:[A-Z_]+=\S+ )?make ([a-z]+)([^`\n#]*)", text_of(page), re.MULTILINE)
    for target, options in commands:
        assert target in targets
        for variable, value in re.findall(r"([A-Z]+)=(\S+)", options):
            assert f"$({variable})" in MAKEFILE
            assert variable != "NAME" or value == "NAME" or (ROOT / f"experiments/{value}.yaml").exists(), value


@current_pages
def test_python_commands_have_modules_and_options(page: Path):
    for module, options in re.findall(r"python -m (\w[\w.]*)([^`\n#]*)", text_of(page)):
        path = ROOT / module.replace(".", "/")
        files = [file for file in (path.with_suffix(".py"), path / "__main__.py") if file.exists()]
        assert files or module == "stages.NAME", module
        for option in re.findall(r" (--[a-z-]+)", options):
            assert f'"{option}"' in text_of(files[0]), option


@current_pages
def test_parameters_exist(page: Path):
    groups = {name: getattr(field.annotation, "model_fields", {}) for name, field in Params.model_fields.items()}
    names = "|".join(name for name, fields in groups.items() if fields)
    for group, key in re.findall(rf"`({names})\.(\w+)(?:`|:)", text_of(page)):
        assert key in groups[group] or key == "csv", f"{group}.{key}"


def test_documents_named_in_code_exist():
    for file in listed("*.py", "*.j2", "*.yaml", "*.yml", "*.txt", "*.sbatch", "Makefile"):
        for path in re.findall(r"\b((?:docs|benchmarks|data)/\w+\.md)\b", text_of(file)):
            assert (ROOT / path).exists(), f"{file}: {path}"
