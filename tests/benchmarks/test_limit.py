"""The limit: work counted by hand, peaks measured, shares of them."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from benchmarks.limit.operators import PROFILERS, profile, stage_images
from benchmarks.limit.peaks import best, convolution
from benchmarks.limit.stages import Images, images_of, stage_lines, work_of_stage
from benchmarks.limit.work import Work, work_of
from cascade_rt.bundles.bundle import embedded_bundle_path, read_bundle
from cascade_rt.measuring.benchmarking.measure import ArmResult, Scan, TimedRun
from cascade_rt.measuring.benchmarking.worker import Opened, Run


def graph_of(
    nodes: list[onnx.NodeProto], weights: dict[str, tuple[int, ...]], shape: tuple[int, ...]
) -> onnx.ModelProto:
    """A graph from `x` to `y` with weights of ones."""
    initializers = [numpy_helper.from_array(np.ones(size, np.float32), name) for name, size in weights.items()]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "counted", [x], [y], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def counted(graph: onnx.ModelProto, shape: tuple[int, ...]) -> Work:
    return work_of(graph, {"x": np.ones(shape, np.float32)})


def test_a_convolution_counts_each_weight_at_each_position() -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="c", pads=[1, 1, 1, 1])
    work = counted(graph_of([node], {"w": (5, 3, 3, 3)}, (2, 3, 8, 10)), (2, 3, 8, 10))
    assert work.operations == 2 * (2 * 5 * 8 * 10) * (3 * 3 * 3)
    assert work.bytes == 4 * (2 * 3 * 80 + 5 * 3 * 9 + 2 * 5 * 80)


def test_a_strided_convolution_counts_its_output() -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="c", strides=[2, 2], kernel_shape=[2, 2])
    assert counted(graph_of([node], {"w": (4, 1, 2, 2)}, (1, 1, 8, 8)), (1, 1, 8, 8)).operations == 2 * 4 * 16 * 4


def test_a_transposed_convolution_counts_its_input() -> None:
    node = helper.make_node("ConvTranspose", ["x", "w"], ["y"], name="c", strides=[2, 2])
    work = counted(graph_of([node], {"w": (3, 4, 2, 2)}, (1, 3, 6, 6)), (1, 3, 6, 6))
    assert work.operations == 2 * (3 * 4 * 2 * 2) * 36


def test_a_product_counts_the_axis_that_is_summed_over() -> None:
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="m")
    work = counted(graph_of([node], {"w": (7, 5)}, (2, 3, 7)), (2, 3, 7))
    assert work.operations == 2 * (2 * 3 * 5) * 7
    assert work.bytes == 4 * (42 + 35 + 30)


def test_a_transposed_product_counts_its_own_axis() -> None:
    node = helper.make_node("Gemm", ["x", "w"], ["y"], name="m", transA=1)
    assert counted(graph_of([node], {"w": (7, 5)}, (7, 3)), (7, 3)).operations == 2 * 3 * 5 * 7


def test_nodes_without_products_count_nothing() -> None:
    assert counted(graph_of([helper.make_node("Relu", ["x"], ["y"])], {}, (1, 4)), (1, 4)) == Work(0, 0)


def test_the_work_of_a_stage_grows_with_its_images() -> None:
    bundle = read_bundle(embedded_bundle_path("phantom"))
    one, three = (work_of_stage(bundle, "stage2", Images({(64, 64): count})) for count in (1, 3))
    assert three.operations == pytest.approx(3 * one.operations)


def test_images_are_those_of_the_reports(tmp_path: Path) -> None:
    boxes = [{"slice": 0, "row": 0, "col": 0, "height": 64, "width": 96}] * 2
    (tmp_path / "a.json").write_text(json.dumps({"geometry": {"shape": [5, 100, 128]}, "boxes": boxes}))
    images = images_of([tmp_path / "a.json"])
    assert images["stage1"] == Images({(112, 128): 5})
    assert (images["stage2"].counts, images["stage2"].most) == ({(64, 96): 2}, (64, 96))


def test_without_crops_stage_2_has_no_size() -> None:
    assert Images({}).most is None


def test_the_peak_of_an_arithmetic_is_the_best_of_all() -> None:
    lines = [
        {"name": "matmul_fp32_1024", "unit": "TFLOP/s", "value": 0.1},
        {"name": "conv3x3_fp32_4x64x128", "unit": "TFLOP/s", "value": 0.3},
        {"name": "conv3x3_bf16_4x64x128", "unit": "TFLOP/s", "value": None},
        {"name": "copy", "unit": "GB/s", "value": 10.0},
    ]
    assert best(lines) == {"fp32": pytest.approx(3e11), "copy": pytest.approx(1e10)}


def test_a_convolution_for_a_peak_says_how_many_operations_it_is() -> None:
    import torch

    run, operations = convolution(torch.float32, 1, 2, 4)("cpu")
    run()
    assert operations == 2 * (2 * 16) * (2 * 9)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", PROFILERS)
def test_profilers_tell_the_time_of_convolutions(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if name.startswith("openvino"):
        pytest.importorskip("openvino")
    monkeypatch.setattr("benchmarks.limit.operators.RUNS", 1)
    monkeypatch.setattr("benchmarks.limit.operators.WARM_UPS", 1)
    found = profile(name, embedded_bundle_path("phantom"), "stage2", (64, 64))
    assert "conv" in next(iter(found)).lower()
    assert list(found.values()) == sorted(found.values(), reverse=True)


def test_images_of_stage_1_are_hounsfield_units() -> None:
    (images,) = stage_images("stage1", (64, 80), 2).values()
    assert images.shape == (2, 1, 64, 80)
    assert images.min() < -90


def result_of(device: str) -> ArmResult:
    """An arm whose stage 1 took two seconds of a scan, and whose stage 2 did not run."""
    scan, run = Scan(Path("scan.nii.gz"), 4), Run(3.0, {"stage1": 2.0})
    opened = Opened(1.0, {"precision": "bf16", "device": device})
    return ArmResult("arm", opened, run, (TimedRun(0, scan, run), TimedRun(1, scan, run)), 0, None)


def test_the_share_of_the_peak_is_work_over_time_over_peak() -> None:
    work = {"stage1": Work(400.0, 80.0), "stage2": Work(1.0, 1.0)}
    (line,) = stage_lines((result_of("cpu"),), work, {"bf16": 1000.0, "copy": 40.0})
    assert (line["stage"], line["share_of_peak"]) == ("stage1", pytest.approx(0.2))
    # Numbers of half the bytes: 40 bytes in 2 s.
    assert line["share_of_copy"] == pytest.approx(0.5)


def test_what_runs_on_a_gpu_is_not_held_against_the_processor() -> None:
    assert list(stage_lines((result_of("cuda"),), {}, {})) == []
