"""Digests of model folders."""

import os
import subprocess

from peftqa.data.digest import folder_digest, matching_files

FILES = {"config.json": b"{}", "tokenizer.json": b"[]", "model.safetensors": b"weights" * 1000}


def write(folder, files):
    folder.mkdir(parents=True)
    for name, body in files.items():
        (folder / name).write_bytes(body)
    return folder


def test_the_digest_is_what_coreutils_print(tmp_path):
    folder = write(tmp_path / "model", FILES)
    # In the order of `LC_ALL=C sort`.
    lines = subprocess.run(["sha256sum", *sorted(FILES)], cwd=folder, capture_output=True, check=True).stdout
    total = subprocess.run(["sha256sum"], input=lines, capture_output=True, check=True).stdout.decode()
    assert folder_digest(folder) == "sha256:" + total.split()[0]


def test_names_and_bytes_count_but_not_times_places_and_other_files(tmp_path):
    others = {"README.md": b"# model", "pytorch_model.bin": b"pickle", "config.json.bak": b"{}", "modeling.py": b""}
    here, there = write(tmp_path / "here", FILES), write(tmp_path / "far/away", dict(reversed(FILES.items())) | others)
    os.utime(here / "config.json", (1, 1))
    write(there / "onnx", FILES)
    assert folder_digest(here) == folder_digest(there)
    for name, body in {"config.json": b"[]", "generation_config.json": b""}.items():
        before = folder_digest(here)
        (here / name).write_bytes(body)
        assert folder_digest(here) != before


def test_shards_count_and_other_files_if_they_are_named(tmp_path):
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"]
    folder = write(tmp_path / "model", dict.fromkeys([*shards, "train.csv", "val.csv"], b""))
    assert [path.name for path in matching_files(folder)] == shards
    assert [path.name for path in matching_files(folder, ["val.csv", "t*.csv"])] == ["train.csv", "val.csv"]
