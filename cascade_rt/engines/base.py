"""The contract that every engine fulfils."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from cascade_rt.common.tensors import (
    LONGEST_SIDE,
    SHORTEST_SIDE,
    SIDE_MULTIPLE,
    STAGE_SPECS,
    EnginePrecision,
    Stage,
    TensorSpec,
)
from cascade_rt.errors import BundleError

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """Description of an engine, for reports."""

    backend: str
    precision: EnginePrecision
    device: str
    version: str
    """Version of the library that does the computation."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Other settings that affect the result: provider options, TF32, CUDA graphs."""


PRECISION_DOUBT = "precision_doubt"
"""The setting that says why it is not proven that an engine computes in its precision."""


class Tensor(Protocol):
    """An array, or its equivalent in device memory."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis."""
        ...

    @property
    def ndim(self) -> int:
        """Number of axes."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type."""
        ...


class StageEngine(Protocol):
    """Runs one stage.

    Contract:

    - `run` takes exactly the inputs of the stage's `StageSpec` and returns exactly its outputs, all float32, NCHW.
    - Any batch size from 1 is accepted. Height and width must be multiples of 16, from 64 to 2048. Inputs outside
      these limits raise ValueError with the allowed range before anything is computed.
    - Inputs are never modified. Outputs belong to the caller: the engine keeps no reference to them, and a later `run`
      does not change them.
    - Row i of an output depends only on row i of the input.
    - Engines are not thread-safe: only one thread may use an engine at a time.
    - `close` frees host and device memory. It may be called twice. `run` after `close` raises RuntimeError.
    """

    @property
    def stage(self) -> Stage:
        """The stage that this engine runs."""
        ...

    @property
    def info(self) -> EngineInfo:
        """Backend, precision, device, version and settings."""
        ...

    @property
    def preferred_batch(self) -> int:
        """Recommended batch size. Any size works, but larger batches cost memory and save little time."""
        ...

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Compute the stage's outputs."""
        ...

    def close(self) -> None:
        """Free all memory and device resources."""
        ...


def smallest_inputs(stage: Stage) -> dict[str, Array]:
    """Return zeros in the smallest shape that a stage accepts: enough to see whether an engine runs at all."""
    shape = (1, 1, SHORTEST_SIDE, SHORTEST_SIDE)
    return {spec.name: np.zeros(shape, dtype=spec.dtype) for spec in STAGE_SPECS[stage].inputs}


def check_inputs(stage: Stage, inputs: Mapping[str, Tensor]) -> None:
    """Check inputs against the contract. Every engine calls this first.

    Raises:
        ValueError: A name, type or shape is not what the stage accepts.
    """
    specs = STAGE_SPECS[stage].inputs
    names = [spec.name for spec in specs]
    if sorted(inputs) != sorted(names):
        raise ValueError(f"{stage} takes the inputs {names}, got {sorted(inputs)}")
    for spec in specs:
        _check_image(f"{stage} input {spec.name!r}", spec, inputs[spec.name])


def _check_image(what: str, spec: TensorSpec, array: Tensor) -> None:
    if array.dtype != np.dtype(spec.dtype):
        raise ValueError(f"{what} must be {spec.dtype}, got {array.dtype}")
    if array.ndim != len(spec.shape) or array.shape[0] < 1 or array.shape[1] != 1:
        raise ValueError(f"{what} must have shape [batch >= 1, 1, height, width], got {list(array.shape)}")
    for axis, length in zip(("height", "width"), array.shape[2:], strict=True):
        if length % SIDE_MULTIPLE or not SHORTEST_SIDE <= length <= LONGEST_SIDE:
            raise ValueError(
                f"{what} must have a {axis} that is a multiple of {SIDE_MULTIPLE} "
                f"from {SHORTEST_SIDE} to {LONGEST_SIDE}, got {length}"
            )


def check_outputs(what: str, stage: Stage, inputs: Mapping[str, Tensor], outputs: Mapping[str, Tensor]) -> None:
    """Check the outputs of a graph, because NumPy would silently broadcast a wrong shape if it can.

    Args:
        what: Name of the graph, for the error message.
        stage: The stage that the graph implements.
        inputs: The inputs that it was fed.
        outputs: The outputs that it returned, or some of them.

    Raises:
        BundleError: An output has the wrong type, or a shape that does not match the inputs (`E_GRAPH`).
    """
    batch, _, height, width = next(iter(inputs.values())).shape
    lengths = {"batch": batch, "height": height, "width": width}
    for spec in STAGE_SPECS[stage].outputs:
        if spec.name not in outputs:
            continue
        found = outputs[spec.name]
        shape = tuple(lengths[axis] if isinstance(axis, str) else axis for axis in spec.shape)
        if found.dtype != np.dtype(spec.dtype) or found.shape != shape:
            raise BundleError(
                f"{what}: returns {spec.name} as {found.dtype} {list(found.shape)}, but {stage} needs {spec.dtype} "
                f"{list(shape)}; export the bundle again",
                code="E_GRAPH",
            )


def check_open(session: object, stage: Stage) -> None:
    """Raise RuntimeError if the engine has been closed."""
    if session is None:
        raise RuntimeError(f"the {stage} engine is closed")
