"""The gate on engines of an NVIDIA GPU, with the embedded bundle; needs a GPU and their packages."""

from pathlib import Path

import pytest

from cascade_rt.bundles.bundle import embedded_bundle_path, read_bundle
from cascade_rt.common.tolerances import GATE_LIMITS
from cascade_rt.engines import GPU_BACKENDS, Backend, Engines, open_engines
from cascade_rt.engines.engine_cache import CACHE_VARIABLE
from cascade_rt_export.calibration import phantom_calibration
from cascade_rt_export.gate import judge, run_gate
from cascade_rt_export.plans import built_plans
from tests.gpu_backends import require_packages

pytestmark = pytest.mark.gpu

BUNDLE = read_bundle(embedded_bundle_path("phantom"))


@pytest.fixture(scope="module")
def reference() -> Engines:
    return open_engines(BUNDLE, "pytorch", "fp32")


@pytest.mark.parametrize("backend", GPU_BACKENDS)
def test_the_embedded_bundle_passes_in_float32(
    backend: Backend, reference: Engines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_packages(backend)
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "engines"))
    candidate = open_engines(BUNDLE, backend, "fp32", built_plans())
    found = run_gate(reference, candidate, BUNDLE.manifest.config, phantom_calibration())
    judge(found, GATE_LIMITS["fp32"], f"the embedded bundle on {backend}")


def test_pytorch_on_the_gpu_agrees_with_onnxruntime_on_the_cpu(reference: Engines) -> None:
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    if not torch.cuda.is_available():
        pytest.skip("needs a PyTorch built for CUDA: its kernels cannot be emulated")
    candidate = open_engines(BUNDLE, "onnxruntime", "fp32")
    found = run_gate(reference, candidate, BUNDLE.manifest.config, phantom_calibration((6, 128, 128)))
    judge(found, GATE_LIMITS["fp32"], "PyTorch on the GPU")
