"""OpenVINO computes in the precision it was told to, and tells nobody."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cascade_rt.bundles.bundle import Bundle, embedded_bundle_path, read_bundle
from cascade_rt.common.comparison import compare
from cascade_rt.common.tensors import STAGES, Stage
from cascade_rt.engines import open_engine, openvino_session
from cascade_rt.engines.openvino_engine import parts_of
from cascade_rt.engines.openvino_session import (
    OpenVinoPrecision,
    convolution_shares,
    import_openvino,
    open_parts,
)
from cascade_rt.errors import BackendUnavailableError, BundleError, EngineBuildError
from tests.bf16 import require_bf16


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    """An embedded one: these tests need no weights of their own."""
    return read_bundle(embedded_bundle_path("phantom"))


def open_stage(bundle: Bundle, stage: Stage, precision: OpenVinoPrecision) -> list[Any]:
    graph = bundle.graph(stage).read_bytes()
    return open_parts(graph, "the graph", parts_of(graph, "the graph", stage, precision))


def convolutions(model: Any) -> int:
    layers = [node.get_rt_info()["layerType"].value for node in model.get_runtime_model().get_ops()]
    return layers.count("Convolution") + layers.count("Deconvolution")


@pytest.mark.parametrize("stage", STAGES)
def test_float32_stays_float32_on_processors_with_bfloat16(bundle: Bundle, stage: Stage) -> None:
    (model,) = open_stage(bundle, stage, "fp32")
    assert convolution_shares(model) == {"f32": 1.0}


def test_bfloat16_keeps_only_the_salient_image_in_float32(bundle: Bundle) -> None:
    require_bf16()
    shares = [convolution_shares(model) for stage in STAGES for model in open_stage(bundle, stage, "bf16")]
    assert shares == [{"bf16": 1.0}, {"f32": 1.0}, {"f32": 1.0}, {"bf16": 1.0}]


@pytest.mark.parametrize("stage", STAGES)
def test_the_parts_of_a_stage_compute_each_convolution_once(bundle: Bundle, stage: Stage) -> None:
    require_bf16()
    (whole,) = open_stage(bundle, stage, "fp32")
    assert sum(map(convolutions, open_stage(bundle, stage, "bf16"))) == convolutions(whole)


def test_a_model_in_another_precision_than_asked_for_is_refused(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_bf16()
    monkeypatch.setattr(
        "cascade_rt.engines.openvino_session._settings", lambda *_: {"INFERENCE_PRECISION_HINT": "bf16"}
    )
    with pytest.raises(EngineBuildError, match=r"asked for fp32 but computes convolutions in \{'bf16': 1.0\}"):
        open_stage(bundle, "stage1", "fp32")


def test_a_processor_without_bfloat16_is_refused_in_one_sentence(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    class OldProcessor(import_openvino().Core):  # type: ignore[misc]
        def get_property(self, device: str, name: str) -> object:
            return ["FP32"] if name == "OPTIMIZATION_CAPABILITIES" else super().get_property(device, name)

    monkeypatch.setattr(openvino_session, "openvino_core", OldProcessor)
    with pytest.raises(
        BackendUnavailableError, match=r"needs AVX512-BF16 or AMX for bf16, .* has neither; use `precision=fp32`"
    ):
        open_stage(bundle, "stage1", "bf16")


def test_bytes_that_are_not_a_graph_are_refused() -> None:
    with pytest.raises(BundleError, match="the graph: OpenVINO cannot read the graph; export the bundle again"):
        parts_of(b"nothing that ONNX knows", "the graph", "stage2", "bf16")


def test_a_graph_of_the_other_stage_is_refused(bundle: Bundle) -> None:
    graph = bundle.graph("stage2").read_bytes()
    with pytest.raises(BundleError, match="the graph: the graph has no tensor 'hu'; export the bundle again"):
        open_parts(graph, "the graph", parts_of(graph, "the graph", "stage1", "fp32"))


@pytest.mark.parametrize("stage", STAGES)
def test_it_computes_what_pytorch_computes(bundle: Bundle, stage: Stage) -> None:
    random = np.random.default_rng(0)
    engine, reference = open_engine(bundle, stage, "openvino"), open_engine(bundle, stage, "pytorch")
    for batch, rows, cols in ((1, 64, 64), (3, 96, 160), (1, 256, 128)):
        image = random.normal(size=(batch, 1, rows, cols)).astype(np.float32)
        inputs = {"hu": 300 * image} if stage == "stage1" else {"salient": 0.3 * image + 0.5}
        found = engine.run(inputs)
        for name, expected in reference.run(inputs).items():
            assert compare(expected, found[name]).max_error <= 1e-4


@pytest.mark.parametrize("stage", STAGES)
def test_in_bfloat16_it_computes_nearly_what_pytorch_computes(bundle: Bundle, stage: Stage) -> None:
    require_bf16()
    image = np.random.default_rng(0).normal(size=(2, 1, 96, 160)).astype(np.float32)
    inputs = {"hu": 300 * image} if stage == "stage1" else {"salient": 0.3 * image + 0.5}
    engine, reference = open_engine(bundle, stage, "openvino", "bf16"), open_engine(bundle, stage, "pytorch")
    found, expected = engine.run(inputs), reference.run(inputs)
    assert all(np.abs(found[name] - expected[name]).mean() < 1e-2 for name in expected)


SEGMENT = """
import socket

def refuse(*_):
    raise AssertionError("opened a connection")

socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse

import sys
import numpy as np
from cascade_rt.bundles.bundle import embedded_bundle_path, read_bundle
from cascade_rt.engines import open_engines
from cascade_rt.engines.base import smallest_inputs

engines = open_engines(read_bundle(embedded_bundle_path("phantom")), "openvino")
for engine in (engines.stage1, engines.stage2):
    engine.run(smallest_inputs(engine.stage))
print([name for name in sys.modules if name.partition(".")[0] == "openvino_telemetry"])
"""


def test_opening_and_running_it_tells_nobody(tmp_path: Path) -> None:
    # Telemetry holds back in a job of continuous integration; here it must have no such excuse.
    variables = {name: value for name, value in os.environ.items() if name not in {"CI", "TF_BUILD", "JENKINS_URL"}}
    run = subprocess.run(
        [sys.executable, "-c", SEGMENT],
        env={**variables, "HOME": os.fspath(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.splitlines() == ["[]"]
    assert list(tmp_path.iterdir()) == []


CLOSE_AND_SIGNAL = """
import signal
from cascade_rt import open_cascade
received = []
signal.signal(signal.SIGTERM, lambda number, _: received.append(number))
open_cascade(backend="openvino").close()
signal.raise_signal(signal.SIGTERM)
print(received == [signal.SIGTERM])
"""


def test_signals_arrive_after_both_stages_are_closed() -> None:
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run(
        [sys.executable, "-c", CLOSE_AND_SIGNAL], env=variables, capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stdout) == (0, "True\n")
