"""What several tests of the export share: both stages in both precisions."""

from collections.abc import Mapping

import numpy as np
import onnx
import pytest

from cascade_rt.bundles.bundle import Bundle
from cascade_rt.common.tensors import STAGES, Stage
from cascade_rt.data.phantom import make_phantom
from cascade_rt_export.half_precision import half_precision_graph
from tests.half_graphs import Converted, run


@pytest.fixture(scope="session")
def stages(bundle: Bundle) -> Mapping[Stage, Converted]:
    """Both stages, calibrated on slices 4 to 7 of a phantom and tried on slices 8 and 9."""
    slices = make_phantom(31, (14, 128, 128)).hu.astype(np.float32)[:, None]
    single = {stage: onnx.load(bundle.graph(stage)) for stage in STAGES}
    hu = {"hu": slices[4:8]}, {"hu": slices[8:10]}
    salient = [{"salient": run(single["stage1"], entry)["salient"][:, :, 32:112, 16:112].copy()} for entry in hu]
    return {
        stage: Converted(single[stage], half_precision_graph(single[stage], [seen], source="a phantom"), new)
        for stage, (seen, new) in (("stage1", hu), ("stage2", salient))
    }
