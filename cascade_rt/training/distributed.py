"""Training in several processes, one for each GPU, as `torchrun` starts them.

Each process takes its share of every batch; the gradients are added up, so that all take the same step. This is written
out rather than left to `DistributedDataParallel`: that hooks into one call of `forward` with the same parameters in
every process, and here the calls depend on the data. A process may have no crop for stage 2, or, at the end of an
epoch, no slice at all.

Batch statistics are those of each process's own share. `SyncBatchNorm` would join them, and waits for ever where one
process runs stage 2 and another has no crop. The running statistics that inference uses are the first process's, which
has a slice of every batch.
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
"""How long a process waits for another, which may be making phantoms or validating. One that died ends all the others
at once: `torchrun` sees to that."""


@dataclass(frozen=True, slots=True)
class Workers:
    """The processes of a training, seen from one of them. The default is a training in one process."""

    rank: int = 0
    """Number of this process, from 0."""
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    def check(self, batch_size: int) -> None:
        """Raise UsageError where a batch has not a slice for each process."""
        if batch_size < self.count:
            raise UsageError(
                f"train.batch_size {batch_size} cannot be divided among {self.count} processes; "
                f"raise it, or start at most {batch_size}"
            )

    @contextmanager
    def first_before_others(self) -> Iterator[None]:
        """Let the first process through the `with` block alone, and then the others."""
        if not self.is_first:
            self._wait()
        yield
        if self.is_first:
            self._wait()

    def add_gradients(self, model: nn.Module) -> None:
        """Give every process the sum of all gradients; a parameter that has none anywhere still has none."""
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
        """The sum of a tensor over all processes; the tensor itself may be written to."""
        if self.count > 1:
            dist.all_reduce(values)
        return values

    def share_buffers(self, model: nn.Module) -> None:
        """Give every process the first one's running statistics."""
        if self.count > 1:
            for buffer in model.buffers():
                dist.broadcast(buffer, src=0)

    def _wait(self) -> None:
        if self.count > 1:
            dist.barrier()


ALONE = Workers()


@contextmanager
def join_workers() -> Iterator[Workers]:
    """Join the other processes where `torchrun` started this one; otherwise it works alone.

    The GPU of a process is the one of its number on its machine; without GPUs the processes talk through gloo.

    Raises:
        UsageError: The machine has fewer GPUs than processes.
    """
    # Asked for by its own variable: others than torchrun set WORLD_SIZE too, and nobody would answer.
    if "TORCHELASTIC_RUN_ID" not in os.environ or os.environ["WORLD_SIZE"] == "1":
        yield ALONE
        return
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        number, gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if number >= gpus:
            raise UsageError(f"this machine has too few GPUs for so many processes; start at most {gpus} on it")
        torch.cuda.set_device(number)
    dist.init_process_group("nccl" if on_gpu else "gloo", timeout=PATIENCE)
    yield Workers(dist.get_rank(), dist.get_world_size())
    # Not in a `finally`: after an error it could wait for processes that wait for this one.
    dist.destroy_process_group()
