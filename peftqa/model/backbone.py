"""The frozen pretrained model that every variant shares."""

from __future__ import annotations

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
from peftqa.model.checkpoint import check_checkpoint, differences

if TYPE_CHECKING:
    from peftqa.config.params import ModelSettings

GPU_SHARE = "PEFTQA_GPU_SHARE"  # the share of the GPU's memory that this process may use; unset: all of it


def choose_device() -> torch.device:
    """The current GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def choose_dtype(name: str) -> torch.dtype:
    """The torch dtype for `model.dtype`: auto, float32 or bfloat16.

    auto is bfloat16 on a CPU with AMX or AVX512-BF16 and on a GPU with bfloat16 instructions, because bfloat16 is
    faster there. Elsewhere auto is float32. It is never float16, in which T5's activations overflow.
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
    Raises UserError if tensors are missing, not of this model or of the wrong shape, or if one has NaN or infinite
    numbers.
    """
    check_checkpoint(folder, str(folder))
    quiet_libraries()
    torch.set_num_threads(settings.threads)
    device = choose_device()
    if device.type == "cuda":
        prepare_gpu()
    if settings.fast:
        from peftqa.model import fast

        attention = fast.choose_attention(settings.attention, settings.dropout, device)
    elif settings.attention == "fused":
        raise UserError("model.attention: fused is part of the fast path, and model.fast is off; change one of them.")
    else:
        attention = "sdpa" if settings.attention == "auto" else settings.attention
    model = load_weights(
        folder, dtype=choose_dtype(settings.dtype), attn_implementation=attention, dropout_rate=settings.dropout
    )
    for config in (model.config, model.get_decoder().config):  # the decoder reads its own copy
        config.use_cache = False  # training does not read a cache of keys and values
    for name, weight in model.named_parameters():
        if not weight.isfinite().all():
            raise UserError(
                f"{folder}: {name} has NaN or infinite numbers, so the backbone's weights are damaged; fetch the "
                "model anew, or choose another (model.name)."
            )
    float32_logits(model)
    model.requires_grad_(False)
    model.eval()
    model.to(device)
    if settings.fast:
        fast.patch_t5(model)
    return model


def prepare_gpu() -> None:
    """Make PyTorch compute the same bytes in every run on this GPU, and limit this process to its share of the memory.

    The share is in the environment variable GPU_SHARE, for several runs on one GPU.
    Raises UserError if the share is not a number above 0 and at most 1.
    """
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # cuBLAS reads this at its start; it is then deterministic
    torch.use_deterministic_algorithms(True)
    # cuDNN's attention builds an execution plan for every new shape, and nearly every batch has a new length. Without
    # it, prompt tuning ran at 152 instead of 42 examples per second (H200, bfloat16, batches of 8).
    torch.backends.cuda.enable_cudnn_sdp(False)
    if given := os.environ.get(GPU_SHARE):
        try:
            share = float(given)
        except ValueError:
            share = 0.0
        if not 0 < share <= 1:
            raise UserError(f"{GPU_SHARE} is {given!r}; it must be a number above 0 and at most 1.")
        torch.cuda.set_per_process_memory_fraction(share)


def load_weights(folder: Path, **options: object) -> PreTrainedModel:
    """The model in `folder`, as transformers loads it with these options.

    Raises UserError if the model cannot be loaded, or if its tensors are not those that its configuration asks for.
    Without this check, transformers would fill missing tensors with random numbers.
    """
    with covered_files(folder) as files:
        try:
            model, report = AutoModelForSeq2SeqLM.from_pretrained(
                files,
                **options,
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
            )
        except Exception as error:  # transformers raises errors of many kinds
            if out_of_memory(error):
                raise
            reason = one_line(error).replace(str(files), str(folder))
            raise UserError(f"{folder}: the model cannot be loaded ({reason}); fetch the model anew.") from None
    mismatched = report["mismatched_keys"]
    wanted = dict.fromkeys(report["missing_keys"]) | {name: tuple(shape) for name, _, shape in mismatched}
    found = dict.fromkeys(report["unexpected_keys"]) | {name: tuple(shape) for name, shape, _ in mismatched}
    if problems := differences(wanted, found):
        raise UserError(
            f"{folder}: the weights are not those that config.json describes ({problems}); fetch the model anew."
        )
    model.name_or_path = model.config._name_or_path = str(folder)
    model.generation_config = GenerationConfig()  # scoring.py passes every setting itself
    return model


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
    """Make a model compute its logits in float32, in place, even if its other numbers are less precise.

    Near 10, bfloat16 numbers are 1/16 apart, which is too coarse for label probabilities and for the loss. The output
    layer runs at one or two decoder positions only, so this costs next to nothing.
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

    Raises UserError if the tokenizer is broken, or if it lacks the token that ends a prompt.
    """
    try:
        with covered_files(folder) as files:
            tokenizer = AutoTokenizer.from_pretrained(files, trust_remote_code=False, local_files_only=True)
        tokenizer.name_or_path = str(folder)
    except Exception as error:  # transformers raises errors of many kinds
        raise UserError(f"{folder}: the tokenizer cannot be read ({one_line(error)}); fetch the model anew.") from None
    if tokenizer.eos_token_id is None:
        raise UserError(
            f"{folder}: the tokenizer lacks an end-of-sequence token, with which every prompt ends; choose another "
            "model (model.name)."
        )
    return tokenizer


@contextmanager
def memory_explained() -> Iterator[None]:
    """A context manager, also usable as a decorator, that turns out-of-memory errors (GPU or CPU) into a UserError."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if out_of_memory(error):
            raise UserError(
                f"there is not enough memory ({one_line(error)}); lower train.batch_size or evaluate.batch_size, "
                "template.max_tokens or the adapter's num_virtual_tokens, start fewer runs at a time (JOBS), or choose "
                "a smaller model (model.name)."
            ) from None
        raise


def out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def peak_memory_mb() -> float:
    """Peak memory of this process so far, in MiB: allocated on the GPU if one is used, else resident."""
    if choose_device().type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    # bytes on macOS, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
