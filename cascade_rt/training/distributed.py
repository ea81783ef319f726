"""Training in several processes, one per GPU, as started by `torchrun`.

Each process takes its share of every batch. The gradients are summed, so that all processes take the same step. This
does not use `DistributedDataParallel`, which hooks into one call of `forward` with the same parameters in every
process. Here the calls depend on the data: a process may have no crop for stage 2, or no slice at all at the end of an
epoch.

Batch statistics are computed on each process's own share. `SyncBatchNorm` would synchronize them, but deadlocks if one
process runs stage 2 while another has no crop. Inference uses the running statistics of the first process, which has a
slice of every batch.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn

from cascade_rt.errors import UsageError

PATIENCE = timedelta(days=1)
"""Timeout for waiting on another process, which may be making phantoms or validating. If a process dies, `torchrun`
terminates the others at once."""


@dataclass(frozen=True, slots=True)
class Workers:
    """The processes of a training run, as seen from one of them. The default is a single process."""

    rank: int = 0
    """Index of this process, from 0."""
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes and prints."""
        return self.rank == 0

    def check(self, batch_size: int) -> None:
        """Raise UsageError if a batch has fewer slices than there are processes."""
        if batch_size < self.count:
            raise UsageError(
                f"train.batch_size {batch_size} cannot be divided among {self.count} processes; "
                f"raise it, or start at most {batch_size}"
            )

    @contextmanager
    def first_before_others(self) -> Iterator[None]:
        """Run the `with` block in the first process alone, then in the others."""
        if not self.is_first:
            self._wait()
        yield
        if self.is_first:
            self._wait()

    def add_gradients(self, model: nn.Module) -> None:
        """Give every process the sum of all gradients. A parameter without a gradient in any process keeps None."""
        if self.count == 1:
            return
        parameters = list(model.parameters())
        gradients = [torch.zeros_like(each) if each.grad is None else each.grad for each in parameters]
        present = torch.tensor([each.grad is not None for each in parameters]).to(gradients[0])
        total = self.add(torch.cat([present, *(gradient.flatten() for gradient in gradients)]))
        found, *parts = torch.split(total, [len(parameters), *(each.numel() for each in parameters)])
        for parameter, count, part in zip(parameters, found.tolist(), parts, strict=True):
            parameter.grad = part.view_as(parameter) if count else None

    def add(self, values: Tensor) -> Tensor:
        """Return the sum of a tensor over all processes. The input may be overwritten."""
        if self.count > 1:
            dist.all_reduce(values)
        return values

    def share_buffers(self, model: nn.Module) -> None:
        """Give every process the running statistics of the first."""
        if self.count > 1:
            for buffer in model.buffers():
                dist.broadcast(buffer, src=0)

    def _wait(self) -> None:
        if self.count > 1:
            dist.barrier()


ALONE = Workers()


@contextmanager
def join_workers() -> Iterator[Workers]:
    """Join the other processes if `torchrun` started this one. Otherwise, train alone.

    Each process uses the GPU with its local rank. Without GPUs, the processes communicate through gloo.

    Yields:
        The processes, as seen from this one.

    Raises:
        UsageError: The machine has fewer GPUs than processes.
    """
    # Test torchrun's own variable: other launchers set WORLD_SIZE too, and joining would then wait in vain.
    if "TORCHELASTIC_RUN_ID" not in os.environ or os.environ["WORLD_SIZE"] == "1":
        yield ALONE
        return
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        number, gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if number >= gpus:
            raise UsageError(f"this machine has too few GPUs for these processes; start at most {gpus}")
        torch.cuda.set_device(number)
    dist.init_process_group("nccl" if on_gpu else "gloo", timeout=PATIENCE)
    yield Workers(dist.get_rank(), dist.get_world_size())
    # Not in a `finally`: after an error, this could deadlock with processes that wait for this one.
    dist.destroy_process_group()
