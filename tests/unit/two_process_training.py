"""One of several data parallel processes, run with its rank, their number, a free port and a folder for the results.

Each takes its share of one batch, and the first writes the gradients that all of them agreed on.
"""

import os
import sys
from pathlib import Path

import torch
from peft import get_peft_model
from safetensors.torch import save_file
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from peftqa.kv_prefix import KVPrefixConfig
from tests.tiny import tiny_t5

REPARAMETRIZATIONS = (None, 8)


def training_model(reparametrization):
    torch.manual_seed(1)
    config = KVPrefixConfig(num_virtual_tokens=3, task_type="SEQ_2_SEQ_LM", reparametrization=reparametrization)
    return get_peft_model(tiny_t5(), config)


def batch():
    """Four rows with as many labels each, so that the mean over rows is the mean over processes."""
    generator = torch.Generator().manual_seed(2)
    input_ids = torch.randint(3, 64, (4, 7), generator=generator)
    attention_mask = torch.ones_like(input_ids)
    attention_mask[1, 5:] = attention_mask[2, 3:] = 0
    labels = torch.randint(3, 64, (4, 3), generator=generator)
    return {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}


def gradients(model):
    return {n.removeprefix("module."): p.grad.clone() for n, p in model.named_parameters() if p.requires_grad}


def main():
    rank, size, port, folder = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=size)
    for reparametrization in REPARAMETRIZATIONS:
        model = DistributedDataParallel(training_model(reparametrization))
        model(**{name: tensor[rank::size].contiguous() for name, tensor in batch().items()}).loss.backward()
        if rank == 0:
            save_file(gradients(model), folder / str(reparametrization))
    distributed.barrier()
    os._exit(0)  # all is written, and gloo's way of shutting down now and then waits for ever


if __name__ == "__main__":
    main()
