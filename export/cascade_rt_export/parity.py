"""Check that an exported bundle computes what the PyTorch model computes.

Both stages are run on inputs that the exporter never saw: phantom slices with noise, in two batch sizes and three image
or crop sizes. The measured errors go into the manifest, and too large an error fails the export.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cascade_rt.bundles.bundle import Bundle
from cascade_rt.common.comparison import Agreement, compare
from cascade_rt.common.tensors import STAGES, Stage
from cascade_rt.common.tolerances import PARITY_LIMITS
from cascade_rt.data.phantom import make_phantom
from cascade_rt.engines import Backend, open_engine
from cascade_rt.engines.base import Array
from cascade_rt.errors import ParityError

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
    outputs: Mapping[str, Agreement]
    """Agreement of each output with PyTorch over all inputs."""
    shapes: tuple[tuple[int, ...], ...]
    """Shapes of the inputs that were tried."""

    def to_json(self) -> dict[str, Any]:
        """Return plain values for the manifest."""
        errors = {name: found.max_error for name, found in self.outputs.items()}
        return {"max_error": errors, "inputs": [list(shape) for shape in self.shapes]}


def check_parity(bundle: Bundle, backend: Backend = "onnxruntime") -> list[StageParity]:
    """Compare both stages of a bundle on one backend with PyTorch.

    Raises:
        ParityError: An output differs by more than `PARITY_LIMITS` allow.
    """
    limit = PARITY_LIMITS.max_error
    measured = [_measure_stage(bundle, stage, backend) for stage in STAGES]
    for parity in measured:
        found = sum(parity.outputs.values(), start=Agreement())
        if found.missed(PARITY_LIMITS):
            raise ParityError(
                f"{bundle.graph(parity.stage)}: on {backend} differs from PyTorch by {found.max_error:.2g}, more than "
                f"{limit:g}; do not use this bundle, report the versions of torch, onnx and onnxscript"
            )
    return measured


def _measure_stage(bundle: Bundle, stage: Stage, backend: Backend) -> StageParity:
    outputs: dict[str, Agreement] = defaultdict(Agreement)
    shapes = []
    with (
        closing(open_engine(bundle, stage, backend)) as engine,
        closing(open_engine(bundle, stage, "pytorch")) as reference,
    ):
        for inputs in _inputs(bundle, stage):
            found = engine.run(inputs)
            for name, expected in reference.run(inputs).items():
                outputs[name] += compare(expected, found[name])
            shapes.append(next(iter(inputs.values())).shape)
    return StageParity(stage, outputs, tuple(shapes))


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
