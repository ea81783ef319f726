"""PyTorch in eager mode: the baseline that every other engine is compared with."""

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
"""ID of the process in which this module first ran PyTorch."""


class PyTorchEngine:
    """Runs a stage in true float32 on the device of the model, which is put in evaluation mode."""

    def __init__(self, model: CascadeModel, stage: Stage) -> None:
        self._device = next(model.parameters()).device
        graph = Stage1Graph(model) if stage == "stage1" else Stage2Graph(model)
        self._graph: Stage1Graph | Stage2Graph | None = graph.eval()
        self.stage = stage
        self._output_names = [spec.name for spec in STAGE_SPECS[stage].outputs]
        self.info = EngineInfo("pytorch", "fp32", self._device.type, torch.__version__)
        self.preferred_batch = (CPU_BATCH if self._device.type == "cpu" else GPU_BATCH)[stage]

    @classmethod
    def of_bundle(cls, bundle: Bundle, stage: Stage) -> Self:
        """Load a stage of a bundle onto an NVIDIA GPU if one is available, else onto the CPU.

        Raises:
            BundleError: The weights are rejected.
            BackendUnavailableError: The GPU cannot be used.
            EngineOutOfMemoryError: Memory ran out.
        """
        from cascade_rt.models.weights import load_model

        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        with _named_failures("the weights", device):
            return cls(load_model(bundle).to(device), stage)

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Compute the stage's outputs (see `StageEngine`).

        Raises:
            EngineOutOfMemoryError: Memory ran out.
            BackendUnavailableError: The GPU failed, or this process was forked from one in which PyTorch had already
                run.
        """
        check_inputs(self.stage, inputs)
        check_open(self._graph, self.stage)
        _refuse_after_fork()
        image = np.ascontiguousarray(next(iter(inputs.values())))
        with (
            _named_failures(self.stage, self._device),
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
    """Translate out-of-memory errors and, on a GPU, any other RuntimeError into errors of this package."""
    try:
        with named_out_of_memory(what, "pytorch", RuntimeError):
            yield
    except RuntimeError as error:
        if device.type == "cpu":
            raise
        reason = str(error).partition("\n")[0]
        raise BackendUnavailableError(
            f"{what} failed with PyTorch on the GPU ({reason}); choose another `backend`"
        ) from error


def _refuse_after_fork() -> None:
    """Raise BackendUnavailableError if PyTorch ran before a fork. A run would hang without OpenMP's threads."""
    global _ran_in  # noqa: PLW0603  OpenMP's thread pool is global to the process too
    _ran_in = _ran_in or os.getpid()
    if _ran_in != os.getpid():
        raise BackendUnavailableError(
            "PyTorch ran before this process was forked, and cannot run here; start processes "
            "with the method spawn, or choose another `backend`"
        )


@contextmanager
def tf32(*, allowed: bool) -> Iterator[None]:
    """Allow or forbid TF32 in convolutions and matrix products on the GPU. Only one thread enters at a time."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    # The switches are global to the process.
    with _one_at_a_time:
        before = cudnn.allow_tf32, matmul.allow_tf32
        cudnn.allow_tf32 = matmul.allow_tf32 = allowed
        try:
            yield
        finally:
            cudnn.allow_tf32, matmul.allow_tf32 = before
