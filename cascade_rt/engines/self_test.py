"""Check that an engine reproduces the exported outputs on this machine: run the golden case before any patient.

The self-test finds what no hash can: a library that miscompiles the graph, a driver or processor that computes wrongly,
weights that differ between files, or images of a batch that get mixed up. It does not measure precision. See
`cascade-rt verify` for that.
"""

import math

import numpy as np

from cascade_rt.bundles.golden import Golden
from cascade_rt.common.comparison import Agreement, compare
from cascade_rt.common.tolerances import SELF_TEST_LIMITS
from cascade_rt.engines.base import StageEngine
from cascade_rt.errors import EngineError

_ANOTHER_SHAPE = Agreement(voxels=1, different=1, max_error=math.inf, error_sum=math.inf)


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
    others = max(2, engine.preferred_batch) - 1
    batch = {name: np.concatenate([image, *[image[..., ::-1]] * others]) for name, image in golden.inputs.items()}
    outputs = {name: array[:1] for name, array in engine.run(batch).items()}
    for name, expected in golden.outputs.items():
        same_shape = outputs[name].shape == expected.shape
        found = compare(expected.astype(np.float64), outputs[name]) if same_shape else _ANOTHER_SHAPE
        if found.missed(SELF_TEST_LIMITS[info.precision]):
            raise EngineError(
                f"{engine.stage} in {info.precision} on {info.backend} {info.version} ({info.device}) does not "
                f"reproduce the exported model: {name} of the golden case differs by {found.max_error:.2g}, "
                f"{found.mean_error:.2g} on average; choose another `backend`, and run: cascade-rt doctor",
                code="E_SELF_TEST",
            )
