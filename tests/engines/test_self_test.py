"""An engine that does not reproduce the exported model is refused before the first scan."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from cascade_rt.bundles.bundle import Bundle, read_bundle, record_files, write_manifest
from cascade_rt.bundles.golden import Golden
from cascade_rt.common.tensors import PRECISIONS, Precision
from cascade_rt.engines import open_engine
from cascade_rt.engines.base import Array
from cascade_rt.engines.fake import FakeEngine
from cascade_rt.engines.self_test import self_test
from cascade_rt.errors import EngineError
from cascade_rt.run.cascade import open_cascade


class _Engine(FakeEngine):
    """Answers what is golden, plus an error, in a precision."""

    def __init__(self, bundle: Bundle, error: Array | float, precision: str = "fp32") -> None:
        golden = bundle.read_golden()["stage2"]
        super().__init__("stage2", lambda _: {"tumor_prob": golden.outputs["tumor_prob"] + error})
        self.info = replace(self.info, precision=precision)


def at_one_pixel(error: float) -> Array:
    errors = np.zeros((1, 1, 96, 96), np.float32)
    errors[0, 0, 50, 50] = error
    return errors


@pytest.mark.parametrize(
    ("error", "precision"),
    [
        (at_one_pixel(2e-3), "fp32"),
        (2e-4, "fp32"),
        (float("nan"), "fp32"),
        (at_one_pixel(float("nan")), "fp16"),
        (3e-2, "fp16"),
        (3e-2, "bf16"),
    ],
)
def test_outputs_too_far_from_those_of_pytorch_are_refused(bundle: Bundle, error: Array, precision: str) -> None:
    with pytest.raises(EngineError, match="does not reproduce the exported model: tumor_prob") as caught:
        self_test(_Engine(bundle, error, precision), bundle.read_golden()["stage2"])
    assert caught.value.code == "E_SELF_TEST"


@pytest.mark.parametrize(("error", "precision"), [(1e-5, "fp32"), (at_one_pixel(0.5), "fp16"), (1e-2, "bf16")])
def test_rounding_is_allowed(bundle: Bundle, error: Array, precision: str) -> None:
    self_test(_Engine(bundle, error, precision), bundle.read_golden()["stage2"])


@pytest.mark.parametrize("mix", [np.mean, np.max, np.flip], ids=["mean", "largest", "swapped"])
def test_an_engine_that_mixes_the_images_of_a_batch_is_refused(mix: Callable[..., Array]) -> None:
    image = np.random.default_rng(0).normal(0, 100, (1, 1, 96, 96)).astype(np.float32)

    def probability(inputs: Mapping[str, Array]) -> dict[str, Array]:
        return {"organ_prob": 1 / (1 + np.exp(-inputs["hu"] / 100))}

    def mixed(inputs: Mapping[str, Array]) -> dict[str, Array]:
        (found,) = probability(inputs).values()
        options = {} if mix is np.flip else {"keepdims": True}
        return {"organ_prob": np.broadcast_to(mix(found, axis=0, **options), found.shape)}

    golden = Golden({"hu": image}, probability({"hu": image}))
    self_test(FakeEngine("stage1", probability), golden)
    with pytest.raises(EngineError, match="does not reproduce the exported model: organ_prob"):
        self_test(FakeEngine("stage1", mixed), golden)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_engines_of_an_exported_bundle_pass(bundle: Bundle, precision: Precision) -> None:
    for stage, golden in bundle.read_golden().items():
        self_test(open_engine(bundle, stage, "onnxruntime", precision), golden)


def test_a_bundle_whose_graph_computes_something_else_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    """All its hashes are right: somebody has exported it wrongly, or exchanged a graph and written a new manifest."""
    path = Path(shutil.copytree(bundle.path, tmp_path / "bundle"))
    graph = onnx.load(path / "stage2_fp32.onnx")
    weight = max(graph.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    weight.raw_data = (np.frombuffer(weight.raw_data, np.float32) * 1.5).tobytes()
    onnx.save(graph, path / "stage2_fp32.onnx")
    write_manifest(path, replace(bundle.manifest, files=record_files(path)))
    with pytest.raises(EngineError, match=r"stage2 in fp32 on onnxruntime .* choose another `backend`") as caught:
        open_cascade(path, "onnxruntime")
    assert (caught.value.code, caught.value.exit_code) == ("E_SELF_TEST", 7)


def test_inputs_of_the_golden_case_are_those_of_a_phantom_with_tumor(bundle: Bundle) -> None:
    golden: Mapping[str, object] = asdict(read_bundle(bundle.path).manifest)["files"]
    assert "golden.bin" in golden
    image = bundle.read_golden()["stage1"].inputs["hu"]
    assert -1100 < image.min() < image.max() < 2000
