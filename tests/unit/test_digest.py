"""Digests of model folders."""

import os
import subprocess

from peftqa.digest import files_digest, folder_digest, model_files

FILES = {"config.json": b"{}", "tokenizer.json": b"[]", "model.safetensors": b"weights" * 1000}


def write(folder, files=FILES):
    folder.mkdir(parents=True, exist_ok=True)
    for name, body in files.items():
        (folder / name).write_bytes(body)
    return folder


def test_the_digest_is_what_coreutils_print(tmp_path):
    folder = write(tmp_path / "model")
    # In the order of `LC_ALL=C sort`.
    lines = subprocess.run(["sha256sum", *sorted(FILES)], cwd=folder, capture_output=True, check=True).stdout
    total = subprocess.run(["sha256sum"], input=lines, capture_output=True, check=True).stdout.decode()
    assert folder_digest(folder) == "sha256:" + total.split()[0]


def test_times_places_and_other_files_do_not_count(tmp_path):
    here, there = write(tmp_path / "here"), write(tmp_path / "far" / "away", dict(reversed(FILES.items())))
    os.utime(here / "config.json", (1, 1))
    write(there / "onnx")
    write(there, {"README.md": b"# model", "pytorch_model.bin": b"pickle", "config.json.bak": b"{}"})
    assert folder_digest(here) == folder_digest(there)


def test_changed_moved_added_and_removed_bytes_count(tmp_path):
    variants = [
        FILES,
        FILES | {"model.safetensors": b"Weights" * 1000},
        FILES | {"config.json": b"[]", "tokenizer.json": b"{}"},
        FILES | {"generation_config.json": b""},
        {name: body for name, body in FILES.items() if name != "tokenizer.json"},
    ]
    digests = {folder_digest(write(tmp_path / str(number), files)) for number, files in enumerate(variants)}
    assert len(digests) == len(variants)


def test_any_files_can_be_named_in_any_order(tmp_path):
    write(tmp_path, {"a": b"1", "b": b"2"})
    assert files_digest(tmp_path, ["a", "b"]) == files_digest(tmp_path, ["b", "a", "a"])
    assert files_digest(tmp_path, ["a"]) != files_digest(tmp_path, ["b"])


def test_a_models_files_are_configuration_tokenizer_and_safetensors():
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"]
    others = ["pytorch_model.bin", "modeling.py", "onnx/config.json", "model.safetensors.bin", "flax_model.msgpack"]
    assert model_files([*shards, "spiece.model", "config.json", *others]) == sorted(
        [*shards, "spiece.model", "config.json"]
    )
