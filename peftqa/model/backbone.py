"""The frozen pretrained model that every variant shares."""

from __future__ import annotations

import logging
import resource
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from peftqa.errors import UserError, one_line
from peftqa.model.checkpoint import check_checkpoint

if TYPE_CHECKING:
    from peftqa.config.params import ModelSettings

logger = logging.getLogger(__name__)


def choose_device() -> torch.device:
    """The current GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def choose_dtype(name: str) -> torch.dtype:
    """The torch dtype for `model.dtype`: auto, float32 or bfloat16.

    auto is bfloat16 where the machine multiplies it faster than float32 (AMX or AVX512-BF16 on a CPU, or a GPU that
    has it), float32 elsewhere. Never float16, in which T5's activations overflow.
    """
    if name != "auto":
        return getattr(torch, name)
    if choose_device().type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    fast = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if fast else torch.float32


def load_backbone(folder: Path, settings: ModelSettings) -> PreTrainedModel:
    """The encoder-decoder model in `folder`, frozen, in evaluation mode, on the device it will run on.

    Safetensors only, no remote code. If a checkpoint has its own lm_head, transformers loads it even where config.json
    says that it is tied to the embeddings. Dropout is `settings.dropout` in every layer. On a CPU, PyTorch computes
    with `settings.threads` threads from here on, whatever the machine has.
    Raises UserError where tensors are missing, too many, of the wrong shape, or hold NaN or infinite numbers.
    """
    check_checkpoint(folder, str(folder))
    quiet_libraries()
    torch.set_num_threads(settings.threads)
    device, dtype = choose_device(), choose_dtype(settings.dtype)
    if settings.fast:
        from peftqa.model import fast

        attention = fast.choose_attention(settings.attention, settings.dropout, device)
    elif settings.attention == "fused":
        raise UserError("model.attention: fused is part of the fast path, and model.fast is off; set one of the two.")
    else:
        attention = "sdpa" if settings.attention == "auto" else settings.attention
    model = AutoModelForSeq2SeqLM.from_pretrained(
        folder,
        dtype=dtype,
        attn_implementation=attention,
        dropout_rate=settings.dropout,
        use_safetensors=True,
        trust_remote_code=False,
        local_files_only=True,
    )
    for config in (model.config, model.get_decoder().config):  # the decoder reads its own copy
        config.use_cache = False  # training reads no cache of keys and values
    for name, weight in model.named_parameters():
        if not weight.isfinite().all():
            raise UserError(
                f"{folder}: {name} holds NaN or infinite numbers, so the backbone's weights are damaged; fetch the "
                "model anew, or choose another (model.name)."
            )
    float32_logits(model)
    model.requires_grad_(False)
    model.eval()
    model.to(device)
    if settings.fast:
        fast.patch_t5(model)
    logger.info(
        "backbone: %s, %s, %s attention, dropout %g, %s",
        device, dtype, attention, settings.dropout,
        fast.describe(model) if settings.fast else "computed as transformers does",
    )  # fmt: skip
    return model


def float32_logits(model: PreTrainedModel) -> None:
    """Make a model of lower precision compute its logits in float32, in place.

    Near 10, bfloat16 numbers lie 1/16 apart, too coarse for label probabilities and for the loss. The
    output layer runs at one or two decoder positions only, so this costs next to nothing.
    """
    head = model.get_output_embeddings()
    # A new tensor: the old one may be the input embeddings' too.
    head.weight = torch.nn.Parameter(head.weight.float())
    head.register_forward_pre_hook(lambda head, inputs: (inputs[0].to(head.weight.dtype),))


def quiet_libraries() -> None:
    """Silence warnings that a user can do nothing about.

    transformers warns that lm_head and shared are not tied, as they should be in FLAN-T5, and of its own deprecations.
    """
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer in `folder`; no remote code. Raises UserError where it is broken or cannot end a prompt."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # of a file that is not its own, transformers raises whatever it stumbles over
        raise UserError(f"{folder}: the tokenizer cannot be read ({one_line(error)}); fetch the model anew.") from None
    if tokenizer.eos_token_id is None:
        raise UserError(f"{folder}: the tokenizer has no end-of-sequence token, with which every prompt ends.")
    return tokenizer


@contextmanager
def memory_explained() -> Iterator[None]:
    """Raise PyTorch's out-of-memory errors, of GPU or CPU, as a UserError. A context manager, and a decorator."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error):
            raise UserError(
                f"there is not memory enough ({one_line(error)}); lower train.batch_size or evaluate.batch_size, "
                "template.max_tokens or the adapter's num_virtual_tokens, or choose a smaller model (model.name)."
            ) from None
        raise


def peak_memory_mb() -> float:
    """Peak memory of this process so far, in MiB: allocated on the GPU where one is used, else resident."""
    if choose_device().type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    # bytes on macOS, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
