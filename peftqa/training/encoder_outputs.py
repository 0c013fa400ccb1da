"""Encoder outputs, computed once, for adapters whose training does not change them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from peft import PeftModel

from peftqa.model.scoring import batches_by_length


class EncoderOutputFile:
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
        # By its size, too: a machine that lost power can leave a renamed file cut short.
        return self.path.exists() and self.path.stat().st_size == self.starts[-1]

    def __getitem__(self, row: int) -> torch.Tensor:
        with self.path.open("rb") as file:
            file.seek(self.starts[row])
            content = bytearray(file.read(self.starts[row + 1] - self.starts[row]))
        return torch.frombuffer(content, dtype=self.dtype).view(-1, self.d_model)


def add_encoder_outputs(
    model: PeftModel, examples: Sequence[dict], batch_size: int, path: Path, title: str
) -> list[dict]:
    """The examples, each with a function "load_encoder_output" that reads the encoder's output for its prompt.

    examples: {"input_ids": token ids, ...}. The outputs are computed once, into the file `path`.
    """
    prompts = [example["input_ids"] for example in examples]
    outputs = compute_encoder_outputs(model, prompts, batch_size, path, f"{title}, encoding")
    return [
        example | {"load_encoder_output": partial(outputs.__getitem__, row)} for row, example in enumerate(examples)
    ]


@torch.inference_mode()
def compute_encoder_outputs(
    model: PeftModel, prompts: Sequence[Sequence[int]], batch_size: int, path: Path, title: str
) -> EncoderOutputFile:
    """Run the frozen encoder over `prompts` into the file `path`, or reuse a file that an earlier start has finished.

    Its folder must therefore have another name whenever model or data change.
    """
    backbone = model.get_base_model()
    outputs = EncoderOutputFile(path, [len(prompt) for prompt in prompts], backbone.config.d_model, backbone.dtype)
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
                # As bytes: NumPy has no bfloat16.
                file.write(state[: len(prompts[row])].contiguous().view(torch.uint8).numpy().tobytes())
    encoder.train(training)
    unfinished.replace(path)
    return outputs
