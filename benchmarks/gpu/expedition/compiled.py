"""torch.compile with CUDA graphs: one stage, one batch, as compiling takes longer than all else."""

from benchmarks.gpu.clock import Turns
from benchmarks.gpu.deadline import Deadline
from benchmarks.gpu.device import clock_of, own_stream
from benchmarks.gpu.expedition.networks import arms_named
from benchmarks.gpu.expedition.parts import Write
from benchmarks.gpu.expedition.settings import Settings
from benchmarks.gpu.network import random_network
from benchmarks.gpu.timings import time_stages

RACES = (
    ("pytorch-eager-fp32", "pytorch-amp", "pytorch-compiled-graphs-amp"),
    ("pytorch-eager-fp32", "pytorch-compiled-graphs-fp32"),
)
"""Timed one after another, so that the first has its lines if the second is not done in time."""
BATCH = 4


def run(settings: Settings, write: Write, deadline: Deadline) -> None:
    """Compile and time stage 1.

    Raises:
        BackendUnavailableError: PyTorch cannot use the GPU.
    """
    clock, turns = clock_of(settings.device), Turns(settings.rounds, settings.turn_seconds)
    with own_stream(settings.device):
        network = random_network(settings.base_width, settings.device)
        for names in RACES:
            lines = time_stages(
                network,
                (BATCH,),
                clock,
                turns,
                peaks={},
                arms=arms_named(names),
                stages=("stage1",),
                side=settings.side,
                deadline=deadline,
            )
            for line in lines:
                write("timing", line)
