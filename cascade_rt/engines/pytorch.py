"""PyTorch, eager: the baseline that every other engine is compared with."""

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Self

import numpy as np
import torch

from cascade_rt.bundles.bundle import Bundle
from cascade_rt.common.tensors import CPU_BATCH, GPU_BATCH, STAGE_SPECS, Stage
from cascade_rt.engines.base import Array, EngineInfo, check_inputs, check_open
from cascade_rt.engines.out_of_memory import named_out_of_memory
from cascade_rt.errors import BackendUnavailableError
from cascade_rt.models.cascade_model import CascadeModel, Stage1Graph, Stage2Graph

_one_at_a_time = threading.Lock()
_ran_in: int | None = None
"""The process that PyTorch first computed in here."""


class PyTorchEngine:
    """Runs a stage in true float32 on the device of its model, which it puts in evaluation mode."""

    def __init__(self, model: CascadeModel, stage: Stage) -> None:
        self._device = next(model.parameters()).device
        graph = Stage1Graph(model) if stage == "stage1" else Stage2Graph(model)
        self._graph: Stage1Graph | Stage2Graph | None = graph.eval()
        self._stage = stage
        self._output_names = [spec.name for spec in STAGE_SPECS[stage].outputs]
        self._info = EngineInfo("pytorch", "fp32", self._device.type, torch.__version__)

    @classmethod
    def of_bundle(cls, bundle: Bundle, stage: Stage) -> Self:
        """Load a stage of a bundle onto the CPU, or onto an NVIDIA GPU where there is one.

        Raises:
            BundleError: The weights are refused.
            BackendUnavailableError: The GPU cannot be used, or memory is short.
        """
        from cascade_rt.models.weights import load_model

        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        with _named_failures("the weights", device):
            return cls(load_model(bundle).to(device), stage)

    @property
    def stage(self) -> Stage:
        """The stage it runs."""
        return self._stage

    @property
    def info(self) -> EngineInfo:
        """What it is."""
        return self._info

    @property
    def preferred_batch(self) -> int:
        """How many images to give it at once."""
        return (CPU_BATCH if self._device.type == "cpu" else GPU_BATCH)[self._stage]

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Compute the stage's outputs (see `StageEngine`).

        Raises:
            EngineOutOfMemoryError: Memory was short.
            BackendUnavailableError: The GPU failed, or PyTorch has computed in another process, which this was forked
                from.
        """
        check_inputs(self._stage, inputs)
        check_open(self._graph, self._stage)
        _refuse_after_fork()
        image = np.ascontiguousarray(next(iter(inputs.values())))
        with (
            _named_failures(self._stage, self._device),
            torch.inference_mode(),
            tf32(allowed=False),
        ):
            outputs = self._graph(torch.tensor(image, device=self._device))  # type: ignore[misc]
            tensors = outputs if isinstance(outputs, tuple) else (outputs,)
            return {name: tensor.cpu().numpy() for name, tensor in zip(self._output_names, tensors, strict=True)}

    def close(self) -> None:
        """Free the model."""
        self._graph = None


@contextmanager
def _named_failures(what: str, device: torch.device) -> Iterator[None]:
    """Turn a lack of memory, and on a GPU whatever fails there, into an error that says so."""
    try:
        with named_out_of_memory(what, "pytorch", RuntimeError):
            yield
    except RuntimeError as error:
        if device.type == "cpu":
            raise
        reason = str(error).partition("\n")[0]
        raise BackendUnavailableError(
            f"{what} failed with PyTorch on the GPU ({reason}); take another `backend`"
        ) from error


def _refuse_after_fork() -> None:
    """Raise BackendUnavailableError where a run would never end: OpenMP's threads are not in the copy of a process."""
    global _ran_in  # noqa: PLW0603  OpenMP has one pool of threads in a process too
    _ran_in = _ran_in or os.getpid()
    if _ran_in != os.getpid():
        raise BackendUnavailableError(
            "PyTorch has computed in the process that this one was forked from, and cannot here; start processes "
            "with the method spawn, or take another `backend`"
        )


@contextmanager
def tf32(*, allowed: bool) -> Iterator[None]:
    """Let convolutions and matrix products round to TF32 on the GPU, or keep them from it; one thread at a time."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    # The switches are those of the whole process.
    with _one_at_a_time:
        before = cudnn.allow_tf32, matmul.allow_tf32
        cudnn.allow_tf32 = matmul.allow_tf32 = allowed
        try:
            yield
        finally:
            cudnn.allow_tf32, matmul.allow_tf32 = before
