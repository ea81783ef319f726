"""Check that an exported bundle computes what the PyTorch model computes.

Both stages are run on inputs that the exporter never saw: phantom slices with noise, in two batch sizes and three image
or crop sizes. The measured errors go into the manifest, and too large an error fails the export.
"""

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cascade_rt.bundles.bundle import Bundle
from cascade_rt.common.tensors import STAGES, Stage
from cascade_rt.common.tolerances import PARITY_MAX_ERROR
from cascade_rt.data.phantom import make_phantom
from cascade_rt.engines import Backend, open_engine
from cascade_rt.engines.base import Array
from cascade_rt.errors import ParityError
from cascade_rt.measuring.agreement import max_errors

BATCH_SIZES = (1, 3)
SIDES: Mapping[Stage, tuple[tuple[int, int], ...]] = {
    "stage1": ((256, 256), (192, 320), (512, 512)),
    "stage2": ((64, 64), (96, 160), (256, 128)),
}
PHANTOM_SEED = 20_000
"""Far from any seed used for training."""


@dataclass(frozen=True, slots=True)
class StageParity:
    """Measurements of one stage."""

    stage: Stage
    max_error: Mapping[str, float]
    """Largest absolute error of each output over all inputs."""
    shapes: tuple[tuple[int, ...], ...]
    """Shapes of the inputs that were tried."""

    @property
    def worst(self) -> float:
        """Return the largest error of any output, or NaN if one is NaN."""
        return float(np.max(list(self.max_error.values())))

    def to_json(self) -> dict[str, Any]:
        """Return plain values for the manifest."""
        return {"max_error": dict(self.max_error), "inputs": [list(shape) for shape in self.shapes]}


def check_parity(bundle: Bundle, backend: Backend = "onnxruntime") -> list[StageParity]:
    """Compare both stages of a bundle on one backend with PyTorch.

    Raises:
        ParityError: An output differs by more than `PARITY_MAX_ERROR`.
    """
    found = [_measure_stage(bundle, stage, backend) for stage in STAGES]
    for parity in found:
        # Negated so that NaN fails.
        if not parity.worst <= PARITY_MAX_ERROR:
            raise ParityError(
                f"{bundle.graph(parity.stage)}: on {backend} differs from PyTorch by {parity.worst:.2g}, more than "
                f"{PARITY_MAX_ERROR:g}; do not use this bundle, report the versions of torch, onnx and onnxscript"
            )
    return found


def _measure_stage(bundle: Bundle, stage: Stage, backend: Backend) -> StageParity:
    worst: dict[str, float] = {}
    shapes = []
    with (
        closing(open_engine(bundle, stage, backend)) as engine,
        closing(open_engine(bundle, stage, "pytorch")) as reference,
    ):
        for inputs in _inputs(bundle, stage):
            errors = max_errors(engine.run(inputs), reference.run(inputs))
            worst = {name: float(np.maximum(worst.get(name, 0.0), error)) for name, error in errors.items()}
            shapes.append(next(iter(inputs.values())).shape)
    return StageParity(stage, worst, tuple(shapes))


def _inputs(bundle: Bundle, stage: Stage) -> Iterator[dict[str, Array]]:
    """Yield inputs of one stage: noisy phantom slices for stage 1, and their stage 1 output in PyTorch for stage 2."""
    random = np.random.default_rng(PHANTOM_SEED)
    slices = make_phantom(PHANTOM_SEED, (16, 256, 256)).hu
    stage1 = open_engine(bundle, "stage1", "pytorch") if stage == "stage2" else None
    for batch in BATCH_SIZES:
        for side in SIDES[stage]:
            hu = _to_size(slices[random.choice(len(slices), batch, replace=False)], side)
            hu += random.normal(0, 30, hu.shape).astype(np.float32)
            yield {"hu": hu} if stage1 is None else {"salient": stage1.run({"hu": hu})["salient"]}


def _to_size(slices: npt.NDArray[np.int16], side: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Tile slices `[batch, row, col]` 2 x 2 and crop the center, which gives `[batch, 1, *side]`."""
    tiled = np.tile(slices, (1, 2, 2))
    row, col = ((tiled.shape[axis + 1] - side[axis]) // 2 for axis in (0, 1))
    window = tiled[:, None, row : row + side[0], col : col + side[1]]
    return window.astype(np.float32)
