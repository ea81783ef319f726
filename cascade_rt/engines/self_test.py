"""Check that an engine reproduces the exported outputs on this machine: run the golden case before any patient.

The self-test finds what no hash can: a library that miscompiles the graph, a driver or processor that computes wrongly,
weights that differ between files, or images of a batch that get mixed up. It does not measure precision. See
`cascade-rt verify` for that.
"""

import numpy as np

from cascade_rt.bundles.golden import Golden
from cascade_rt.common.tolerances import SELF_TEST_LIMITS
from cascade_rt.engines.base import StageEngine
from cascade_rt.errors import EngineError


def self_test(engine: StageEngine, golden: Golden) -> None:
    """Run the golden case in a batch with mirror images of it, because outputs must not depend on other images.

    Args:
        engine: The engine of a stage.
        golden: The golden case of that stage.

    Raises:
        EngineError: The outputs differ from those that were exported (`E_SELF_TEST`).
        BackendUnavailableError: The engine does not run at all.
    """
    info = engine.info
    limits = SELF_TEST_LIMITS[info.precision]
    others = max(2, engine.preferred_batch) - 1
    batch = {name: np.concatenate([image, *[image[..., ::-1]] * others]) for name, image in golden.inputs.items()}
    outputs = {name: found[:1] for name, found in engine.run(batch).items()}
    for name, expected in golden.outputs.items():
        # A different shape would be broadcast to the expected one where possible.
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
