"""The golden case of a bundle: one small input of each stage, and PyTorch's output for it at the time of export.

Every engine is tested with it when it is opened (`cascade_rt.engines.self_test`), to verify before the first patient
that the engine computes on this machine what was exported.

The file contains only numbers, so that no parsing is needed: float32, little-endian, in C order. For each stage, its
inputs are followed by its outputs, in the order of `STAGE_SPECS`, for one image of `SIDE` x `SIDE` pixels.
"""

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from cascade_rt.common.tensors import STAGE_SPECS, STAGES, Stage, TensorSpec

SIDE = 96
"""Rows and columns of the image."""
_LENGTHS = {"batch": 1, "height": SIDE, "width": SIDE}
_DTYPE = np.dtype("<f4")

Tensors = Mapping[str, npt.NDArray[np.float32]]
Kind = Literal["inputs", "outputs"]


@dataclass(frozen=True, eq=False, slots=True)
class Golden:
    """Input and expected output of one stage."""

    inputs: Tensors
    outputs: Tensors
    """What PyTorch computed in float32."""


def golden_bytes(golden: Mapping[Stage, Golden]) -> bytes:
    """Serialize the golden case. Raises ValueError if a tensor has the wrong shape or non-finite values."""
    return b"".join(_checked(spec, getattr(golden[stage], kind)[spec.name]).tobytes() for stage, kind, spec in _LAYOUT)


def read_golden(content: bytes) -> dict[Stage, Golden]:
    """Parse the content of the file.

    Raises:
        ValueError: The length is wrong, or a value is not finite.
    """
    if len(content) != GOLDEN_BYTES:
        raise ValueError(f"has {len(content)} bytes, expected {GOLDEN_BYTES}")
    numbers = np.frombuffer(content, dtype=_DTYPE)
    if not np.isfinite(numbers).all():
        raise ValueError("contains NaN or infinity")
    tensors: dict[tuple[Stage, Kind], dict[str, npt.NDArray[np.float32]]] = defaultdict(dict)
    position = 0
    for stage, kind, spec in _LAYOUT:
        shape = _shape(spec)
        length = math.prod(shape)
        tensors[stage, kind][spec.name] = numbers[position : position + length].reshape(shape).astype(np.float32)
        position += length
    return {stage: Golden(tensors[stage, "inputs"], tensors[stage, "outputs"]) for stage in STAGES}


def _checked(spec: TensorSpec, tensor: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    if tensor.shape != _shape(spec) or not np.isfinite(tensor).all():
        raise ValueError(f"golden {spec.name} must be finite and of shape {_shape(spec)}, got {tensor.shape}")
    return np.ascontiguousarray(tensor, dtype=_DTYPE)


def _shape(spec: TensorSpec) -> tuple[int, ...]:
    return tuple(_LENGTHS[axis] if isinstance(axis, str) else axis for axis in spec.shape)


_LAYOUT: list[tuple[Stage, Kind, TensorSpec]] = [
    (stage, kind, spec)
    for stage in STAGES
    for kind in get_args(Kind)
    for spec in (STAGE_SPECS[stage].inputs if kind == "inputs" else STAGE_SPECS[stage].outputs)
]
GOLDEN_BYTES = _DTYPE.itemsize * sum(math.prod(_shape(spec)) for _, _, spec in _LAYOUT)
"""Length of the file in bytes."""
