"""The training stage in several processes on one machine, through torchrun."""

import logging
import os
import sys
import tempfile
from pathlib import Path

import torch
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import parse_args
from torch.distributed.run import run as torchrun

from peftqa.errors import UserError
from stages import workspace


def start_processes(count: int, threads: int) -> None:
    """Run this stage in `count` processes of `threads` threads each; only the first prints.

    Raises UserError where there are GPUs, but fewer than processes, and where another process failed first, with the
    last line that it printed.
    """
    if 0 < torch.cuda.device_count() < count:
        raise UserError(f"train.processes is {count}, but there are {torch.cuda.device_count()} GPUs; each takes one.")
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))  # torchrun would choose one
    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as logs:
        redirects = ",".join(f"{rank}:3" for rank in range(1, count))
        options = ["--standalone", "--nproc-per-node", str(count), "--redirects", redirects, "--log-dir", logs]
        try:
            torchrun(parse_args([*options, "-m", "stages.train", workspace.stage_key()]))
        except SignalException:
            raise KeyboardInterrupt from None
        except ChildFailedError as error:
            rank, _ = error.get_first_failure()
            lines = [line for path in Path(logs).rglob(f"{rank}/stderr.log") for line in path.read_text().splitlines()]
            if rank and lines:
                raise UserError(f"process {rank}: {lines[-1].removeprefix('error: ')}") from None
            sys.exit(1)
