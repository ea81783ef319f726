"""Whether an engine computes on this machine what was exported: the golden case of the bundle, run before any patient.

It finds what no hash can: a library that miscompiles the graph, a driver or a processor that computes wrongly, weights
in one file that are not those of the other, images of a batch that are mixed. It does not measure precision; that is
what `cascade-rt verify` does.
"""

from dataclasses import dataclass

import numpy as np

from cascade_rt.bundles.golden import Golden
from cascade_rt.engines.base import StageEngine
from cascade_rt.errors import EngineError


@dataclass(frozen=True, slots=True)
class SelfTestLimits:
    """How far the outputs may be from those of PyTorch."""

    max_error: float
    """Largest absolute difference of a number."""
    mean_error: float
    """Mean absolute difference of an output."""


FULL_PRECISION = SelfTestLimits(max_error=1e-3, mean_error=1e-4)
REDUCED_PRECISION = SelfTestLimits(max_error=1.0, mean_error=2e-2)
"""Rounding moves single probabilities by as much as the network is steep there; on the whole it moves little."""


def self_test(engine: StageEngine, golden: Golden) -> None:
    """Run the golden case, in a batch with its mirror images, for what it answers may not hang on its neighbours.

    Args:
        engine: The engine of a stage.
        golden: The golden case of that stage.

    Raises:
        EngineError: Its outputs are not those that were exported (`E_SELF_TEST`).
        BackendUnavailableError: It does not run at all.
    """
    info = engine.info
    limits = FULL_PRECISION if info.precision == "fp32" else REDUCED_PRECISION
    others = max(2, engine.preferred_batch) - 1
    batch = {name: np.concatenate([image, *[image[..., ::-1]] * others]) for name, image in golden.inputs.items()}
    outputs = {name: found[:1] for name, found in engine.run(batch).items()}
    for name, expected in golden.outputs.items():
        # Another shape would be stretched to the one expected where it can be.
        same_shape = outputs[name].shape == expected.shape
        errors = np.abs(outputs[name].astype(np.float64) - expected) if same_shape else np.array(np.inf)
        worst, mean = float(errors.max()), float(errors.mean())
        # Written so that NaN fails.
        if not (worst <= limits.max_error and mean <= limits.mean_error):
            raise EngineError(
                f"{engine.stage} in {info.precision} on {info.backend} {info.version} ({info.device}) does not compute "
                f"what was exported: {name} of the golden case differs by {worst:.2g}, {mean:.2g} on average; "
                "take another `backend`, and run: cascade-rt doctor",
                code="E_SELF_TEST",
            )
