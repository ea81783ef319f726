"""What a backend of an NVIDIA GPU needs beside the GPU."""

import pytest

from cascade_rt.engines import Backend


def require_packages(backend: Backend) -> None:
    """Skip the test where the packages of a GPU backend are not installed; what is installed has to work."""
    if backend == "tensorrt":
        pytest.importorskip("tensorrt", reason="needs TensorRT")
        pytest.importorskip("pycuda", reason="needs pycuda")
    if backend == "onnxruntime-cuda":
        onnxruntime = pytest.importorskip("onnxruntime", reason="needs ONNX Runtime")
        if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
            pytest.skip("needs an ONNX Runtime with CUDA (onnxruntime-gpu)")
