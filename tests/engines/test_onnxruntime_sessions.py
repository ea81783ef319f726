"""ONNX Runtime computes where it was told to, or is refused; what holds on the CPU is tried here."""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest

from cascade_rt.bundles.bundle import Bundle, embedded_bundle_path, read_bundle
from cascade_rt.common.tensors import Precision
from cascade_rt.engines.base import smallest_inputs
from cascade_rt.engines.onnxruntime_engine import OnnxRuntimeGpuEngine
from cascade_rt.engines.onnxruntime_session import CUDA, TENSORRT, check_placement, open_gpu_session, run_bound
from cascade_rt.engines.smoke_tests import GRAPH_PATH
from cascade_rt.errors import BackendUnavailableError


@pytest.fixture
def cpu_session(bundle: Bundle) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    return onnxruntime.InferenceSession(
        bundle.graph("stage2").read_bytes(), sess_options=options, providers=["CPUExecutionProvider"]
    )


def test_work_on_images_that_landed_on_the_cpu_is_refused(cpu_session: onnxruntime.InferenceSession) -> None:
    with pytest.raises(BackendUnavailableError, match=r"would compute .*Conv, .* of the graph on the CPU; run: pip"):
        check_placement(cpu_session, "the graph", "onnxruntime-cuda")


def test_arithmetic_on_lengths_may_stay_on_the_cpu() -> None:
    onnx = pytest.importorskip("onnx")
    helper, kind = onnx.helper, onnx.TensorProto
    shape = helper.make_node("Shape", ["x"], ["lengths"])
    height = helper.make_node("Gather", ["lengths", "axis"], ["height"], axis=0)
    graph = helper.make_graph(
        [shape, height],
        "lengths",
        [helper.make_tensor_value_info("x", kind.FLOAT, ["rows", "cols"])],
        [helper.make_tensor_value_info("height", kind.INT64, [])],
        [helper.make_tensor("axis", kind.INT64, [], [0])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), sess_options=options, providers=["CPUExecutionProvider"]
    )
    check_placement(session, "the graph", "onnxruntime-cuda")


def test_bound_memory_gives_what_a_plain_run_gives(cpu_session: onnxruntime.InferenceSession) -> None:
    inputs = {name: array + 0.5 for name, array in smallest_inputs("stage2").items()}
    (bound,) = run_bound(cpu_session, inputs, ["tumor_prob"], "cpu")
    np.testing.assert_array_equal(bound, cpu_session.run(["tumor_prob"], inputs)[0])


def test_a_provider_and_its_helpers_run_on_the_gpu_of_one_number() -> None:
    chosen = TENSORRT.on_device(3)
    assert [each.options["device_id"] for each in (chosen, *chosen.helpers)] == ["3", "3"]
    assert chosen.helpers[0].options == {**CUDA.options, "device_id": "3"}


@pytest.mark.skipif(CUDA.name in onnxruntime.get_available_providers(), reason="needs an ONNX Runtime without CUDA")
def test_onnxruntime_without_cuda_is_refused_with_the_command_to_fix_it(bundle: Bundle) -> None:
    graph = bundle.graph("stage1").read_bytes()
    with pytest.raises(BackendUnavailableError, match=r"CUDAExecutionProvider, .*; run: pip uninstall .*gpu\[cuda"):
        open_gpu_session(graph, "the graph", CUDA, "onnxruntime-cuda")


def test_a_provider_for_another_tensorrt_is_refused_without_useless_advice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "capi").mkdir()
    (tmp_path / "capi" / "libonnxruntime_providers_tensorrt.so").write_bytes(b"\x7fELF\0libnvinfer.so.999\0")
    monkeypatch.setattr(onnxruntime, "__file__", str(tmp_path / "__init__.py"))
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [TENSORRT.name])
    monkeypatch.setitem(sys.modules, "tensorrt", SimpleNamespace(__version__="11.4.0.106"))
    with pytest.raises(BackendUnavailableError) as refusal:
        open_gpu_session(GRAPH_PATH.read_bytes(), "the graph", TENSORRT, "onnxruntime-tensorrt")
    assert str(refusal.value) == (
        "TensorrtExecutionProvider of the installed ONNX Runtime is built for TensorRT 999, and libnvinfer.so.999 "
        "cannot be loaded (TensorRT 11.4.0.106 is installed); backend 'tensorrt' does not need it"
    )


def test_results_on_the_gpu_are_those_of_float32() -> None:
    assert CUDA.options["use_tf32"] == "0"


@pytest.mark.usefixtures("a_gpu")
@pytest.mark.parametrize(("precision", "layout"), [("fp32", None), ("fp16", "1")])
def test_half_precision_has_the_channels_last(
    monkeypatch: pytest.MonkeyPatch, precision: Precision, layout: str | None
) -> None:
    bundle = read_bundle(embedded_bundle_path("phantom"))
    only_graph = bundle.graph("stage2")
    monkeypatch.setattr(Bundle, "graph", lambda *_: only_graph)

    def open_on_cpu(graph: bytes, *_: object) -> onnxruntime.InferenceSession:
        return onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])

    monkeypatch.setattr("cascade_rt.engines.onnxruntime_engine.open_gpu_session", open_on_cpu)
    engine = OnnxRuntimeGpuEngine(bundle, "stage2", precision)
    assert engine.info.settings.get("prefer_nhwc") == layout
