"""Encoder outputs computed once, for adapters under which they are the same all along."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from peft import PeftModel, PeftType

from peftqa.scoring import batches_by_length

IN_THE_PROMPT = {PeftType.PROMPT_TUNING, PeftType.P_TUNING, PeftType.MULTITASK_PROMPT_TUNING}  # what the encoder reads


def encoder_is_constant(model: PeftModel) -> bool:
    """Whether training the adapter leaves the encoder's output as it is: nothing in or before the encoder is trained,
    and there is no dropout."""
    backbone = model.get_base_model()
    trained = any(parameter.requires_grad for parameter in backbone.get_encoder().parameters())
    return not (trained or model.peft_type in IN_THE_PROMPT or backbone.config.dropout_rate)


class EncoderOutputs:
    """The encoder's last hidden states of some prompts, in a file: memory does not grow with the number of prompts.

    `outputs[row]` reads those of one prompt, (tokens, d_model), in the model's dtype.
    """

    def __init__(self, path: Path, lengths: Sequence[int], d_model: int, dtype: torch.dtype) -> None:
        self.path, self.d_model, self.dtype = path, d_model, dtype
        self.bytes_per_token = d_model * dtype.itemsize
        self.starts = [0]
        for length in lengths:
            self.starts.append(self.starts[-1] + length * self.bytes_per_token)

    def complete(self) -> bool:
        return self.path.exists() and self.path.stat().st_size == self.starts[-1]

    def __getitem__(self, row: int) -> torch.Tensor:
        with self.path.open("rb") as file:
            file.seek(self.starts[row])
            content = bytearray(file.read(self.starts[row + 1] - self.starts[row]))
        return torch.frombuffer(content, dtype=self.dtype).view(-1, self.d_model)


@torch.inference_mode()
def compute_encoder_outputs(
    model: PeftModel, prompts: Sequence[Sequence[int]], batch_size: int, path: Path, title: str
) -> EncoderOutputs:
    """Run the frozen encoder over `prompts` into the file `path`, or take what stands there whole from before."""
    backbone = model.get_base_model()
    outputs = EncoderOutputs(path, [len(prompt) for prompt in prompts], backbone.config.d_model, backbone.dtype)
    if outputs.complete():
        return outputs
    encoder, training = backbone.get_encoder(), backbone.training
    encoder.eval()
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}")  # several processes may do this at once
    with unfinished.open("wb") as file:
        batches = batches_by_length(prompts, batch_size, backbone.config.pad_token_id, backbone.device, title)
        for rows, batch in batches:
            states = encoder(**batch).last_hidden_state.to("cpu", outputs.dtype)
            for row, state in zip(rows, states, strict=True):
                file.seek(outputs.starts[row])
                file.write(state[: len(prompts[row])].contiguous().view(torch.uint8).numpy().tobytes())
    encoder.train(training)
    unfinished.replace(path)
    return outputs
