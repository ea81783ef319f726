"""Which processors compute in bfloat16."""

import pytest

from cascade_rt.engines.openvino_session import openvino_core


def require_bf16() -> None:
    """Skip the test where OpenVINO does not compute in bfloat16 on this processor."""
    if "BF16" not in openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("needs a processor with AVX512-BF16 or AMX")
