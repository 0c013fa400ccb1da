"""The frozen pretrained model that every variant shares."""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from peftqa.data.digest import matching_files
from peftqa.errors import UserError, one_line
from peftqa.model.checkpoint import differences, tensor_shapes

if TYPE_CHECKING:
    from peftqa.config.params import ModelSettings

MODEL_TYPES = ("t5", "mt5", "umt5")
GPU_SHARE = "PEFTQA_GPU_SHARE"  # the share of the GPU's memory that this process may use; unset: all of it


def choose_device() -> torch.device:
    """The current GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def choose_dtype(name: str) -> torch.dtype:
    """The torch dtype for `model.dtype`: auto, float32 or bfloat16.

    auto is bfloat16 if the CPU or GPU has fast instructions for it (such as AMX, AVX512-BF16), else float32. It is
    never float16, in which T5's activations overflow.
    """
    if name != "auto":
        return getattr(torch, name)
    if choose_device().type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    fast = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if fast else torch.float32


def load_backbone(folder: Path, settings: ModelSettings) -> PreTrainedModel:
    """The encoder-decoder model in `folder`, frozen, in evaluation mode, on the device it will run on.

    Only the files that the folder's digest covers are read, and no remote code is run. A checkpoint's own lm_head is
    used even if config.json says that it is tied to the embeddings. Afterwards PyTorch computes with `settings.threads`
    CPU threads, and on a GPU as `prepare_gpu` says.
    Raises UserError if the model is not a T5, mT5 or UMT5, or if its tensors are not finite floating-point numbers in
    the shapes that config.json asks for.
    """
    quiet_libraries()
    torch.set_num_threads(settings.threads)
    device = choose_device()
    if device.type == "cuda":
        prepare_gpu()
    # Fused attention lacks dropout. With dropout, training needs sdpa, so answers use it too.
    attention = "fused" if settings.fast and not settings.dropout else "sdpa"
    if settings.fast:
        from peftqa.model.fast.t5 import patch_t5
    model = load_weights(
        folder, dtype=choose_dtype(settings.dtype), attn_implementation=attention, dropout_rate=settings.dropout
    )
    for config in (model.config, model.get_decoder().config):  # the decoder reads its own copy
        config.use_cache = False  # training does not read a cache of keys and values
    float32_logits(model)
    model.requires_grad_(False)
    model.eval()
    model.to(device)
    if settings.fast:
        patch_t5(model)
    return model


def prepare_gpu() -> None:
    """Make PyTorch compute the same bytes in every run on this GPU, and limit this process to its share of the memory.

    The share is in the environment variable GPU_SHARE, which `experiments.runs` sets if several runs use one GPU.
    """
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # cuBLAS reads this at its start; it is then deterministic
    torch.use_deterministic_algorithms(True)
    # cuDNN's attention builds an execution plan for every new shape, and nearly every batch has a new length. Without
    # it, prompt tuning ran at 152 instead of 42 examples per second (H200, bfloat16, batches of 8).
    torch.backends.cuda.enable_cudnn_sdp(False)
    if given := os.environ.get(GPU_SHARE):
        torch.cuda.set_per_process_memory_fraction(float(given))


def load_weights(folder: Path, **options: object) -> PreTrainedModel:
    """The model in `folder`, as transformers loads it with these options. Raises UserError as `load_backbone` does.

    transformers itself would fill missing tensors with random numbers, use the embeddings in place of a missing output
    layer, and read whole numbers as weights.
    """
    with covered_files(folder) as files:
        try:
            config = dict(json.loads((files / "config.json").read_bytes()))
            if (kind := config.get("model_type")) not in MODEL_TYPES:
                raise UserError(f"the model type in config.json is {kind!r}, not one of {', '.join(MODEL_TYPES)}")
            for file in files.glob("*.safetensors"):
                tensor_shapes(file)  # for its checks
            model, report = AutoModelForSeq2SeqLM.from_pretrained(
                files,
                **options,
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
            )
            check_tensors(model, report, tied=config.get("tie_word_embeddings", True))
        except Exception as error:  # transformers raises errors of many kinds
            if out_of_memory(error):
                raise
            reason = one_line(error).replace(str(files), str(folder)).rstrip(".")
            raise UserError(
                f"{folder}: the model cannot be loaded: {reason}; fetch it anew, or choose another (model.name)."
            ) from None
    model.name_or_path = model.config._name_or_path = str(folder)
    model.generation_config = GenerationConfig()  # scoring.py passes every setting itself
    return model


def check_tensors(model: PreTrainedModel, report: dict, tied: bool) -> None:
    """Raise UserError if the tensors found are not those that config.json describes, or if one is not finite.

    report: transformers' loading info. tied: whether config.json says that the output layer is the embeddings.
    """
    wanted = dict.fromkeys(report["missing_keys"]) | {name: shape for name, _, shape in report["mismatched_keys"]}
    found = dict.fromkeys(report["unexpected_keys"]) | {name: shape for name, shape, _ in report["mismatched_keys"]}
    if not tied and model.get_output_embeddings().weight is model.get_input_embeddings().weight:
        wanted["lm_head.weight or shared.weight"] = None
    if problems := differences(wanted, found):
        raise UserError(f"the weights are not those that config.json describes ({problems})")
    for name, weight in model.named_parameters():
        if not weight.isfinite().all():
            raise UserError(f"{name} has NaN or infinite numbers")


@contextmanager
def covered_files(folder: Path) -> Iterator[Path]:
    """A temporary folder with links to the files in `folder` that its digest covers.

    If transformers finds another file beside a model, such as an adapter, it reads that too and changes the model.
    """
    with tempfile.TemporaryDirectory(prefix="peftqa-") as links:
        for file in matching_files(folder):
            Path(links, file.name).symlink_to(file.resolve())
        yield Path(links)


def float32_logits(model: PreTrainedModel) -> None:
    """Make a model compute its logits in float32, in place. It costs little, because there are few decoder positions.

    Near 10, bfloat16 numbers are 1/16 apart, which is too coarse for label probabilities and for the loss.
    """
    head = model.get_output_embeddings()
    # The weight becomes a new tensor, because the input embeddings may share the old one.
    head.weight = torch.nn.Parameter(head.weight.float())
    head.register_forward_pre_hook(lambda head, inputs: (inputs[0].to(head.weight.dtype),))


def quiet_libraries() -> None:
    """Silence transformers' warnings about its own deprecations and about FLAN-T5's lm_head, which is not tied."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer in `folder`. Only files that the folder's digest covers are read, and no remote code is run.

    Raises UserError if the tokenizer is broken, lacks the token that ends a prompt, or has ids for which the model does
    not have embeddings.
    """
    try:
        with covered_files(folder) as files:
            tokenizer = AutoTokenizer.from_pretrained(files, trust_remote_code=False, local_files_only=True)
            vocab_size = int(json.loads((files / "config.json").read_bytes()).get("vocab_size", 0))
        if tokenizer.eos_token_id is None:
            raise UserError("it lacks an end-of-sequence token, with which every prompt ends")
        if (highest := max(tokenizer.get_vocab().values())) >= vocab_size:
            raise UserError(f"it has ids up to {highest}, but vocab_size in config.json is {vocab_size}")
    except Exception as error:  # transformers raises errors of many kinds
        raise UserError(
            f"{folder}: the tokenizer cannot be used: {one_line(error)}; fetch the model anew, or choose another "
            "(model.name)."
        ) from None
    tokenizer.name_or_path = str(folder)
    return tokenizer


@contextmanager
def memory_explained() -> Iterator[None]:
    """A context manager, also usable as a decorator, that turns out-of-memory errors (GPU or CPU) into a UserError."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        raise UserError(
            f"there is not enough memory ({one_line(error)}); lower train.batch_size or evaluate.batch_size, "
            "template.max_tokens or the adapter's num_virtual_tokens, start fewer runs at a time (JOBS), or choose a "
            "smaller model (model.name)."
        ) from None


def out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def peak_memory_mb() -> float:
    """Peak memory of this process so far, in MiB: allocated on the GPU if one is used, else resident."""
    if choose_device().type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    # bytes on macOS, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
