"""What TensorRT tells of an engine's layers is read alike in each of its layouts, and a false label is caught in each.

The samples of TensorRT 10 and 11 are written by hand after its documentation; the log is of TensorRT-RTX 1.7.1.
"""

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascade_rt.errors import EngineBuildError
from cascade_rt_export.trt_layers import (
    EngineLayer,
    Weights,
    layers_from_json,
    layers_from_log,
    layers_to_json,
    number_type,
)
from cascade_rt_export.trt_precision import Convolution, check_precision, work_shares

CONVOLUTIONS = {"first": Convolution(work=900, weights=72), "second": Convolution(work=100, weights=8)}


def tensor_10(name: str, dimensions: list[int], told: str) -> dict[str, Any]:
    return {"Name": name, "Location": "Device", "Dimensions": dimensions, "Format/Datatype": told}


TENSORRT_10: dict[str, Any] = {
    "Layers": [
        {
            "Name": "Reformatting CopyNode for Input Tensor 0 to first + relu",
            "LayerType": "Reformat",
            "Inputs": [tensor_10("hu", [-1, 1, -1, -1], "Row major linear FP32")],
            "Outputs": [
                tensor_10("hu reformatted", [-1, 1, -1, -1], "Channel major FP16 format where channel % 8 == 0")
            ],
            "TacticName": "",
            "Metadata": "",
        },
        {
            "Name": "first + relu",
            "LayerType": "CaskConvolution",
            "Inputs": [tensor_10("hu", [-1, 1, -1, -1], "Channel major FP16 format where channel % 8 == 0")],
            "Outputs": [tensor_10("a", [-1, 8, -1, -1], "Channel major FP16 format where channel % 8 == 0")],
            "ParameterType": "Convolution",
            "Weights": {"Type": "Half", "Count": 72},
            "Bias": {"Type": "Half", "Count": 8},
            "Activation": "RELU",
            "TacticName": "sm90_xmma_fprop_implicit_gemm_f16f16_f16f16_f16_nhwckrsc_nhwc_tilesize64x64x64",
            "Metadata": "[ONNX Layer: first]\x1e[ONNX Layer: relu]",
        },
        {
            "Name": "second",
            "LayerType": "CaskConvolution",
            "Inputs": [tensor_10("a", [-1, 8, -1, -1], "Channel major FP16 format where channel % 8 == 0")],
            "Outputs": [tensor_10("prob", [-1, 1, -1, -1], "Row major linear FP16 format")],
            "Weights": {"Type": "Half", "Count": 8},
            "TacticName": "sm90_xmma_fprop_implicit_gemm_f16f16_f16f16_f16_nhwckrsc_nhwc_tilesize64x64x64",
            "Metadata": "",
        },
    ],
    "Bindings": ["hu", "prob"],
}


def tensor_11(name: str, dimensions: list[int], told: str) -> dict[str, Any]:
    return {"Name": name, "Dimensions": dimensions, "Datatype": told, "Format": "(NHWC) Channel major format"}


TENSORRT_11: dict[str, Any] = {
    "Layers": [
        {
            "Name": "__myl_CastReplConc_myl0_1",
            "LayerType": "kgen",
            "Inputs": [tensor_11("hu", [-1, 1, -1, -1], "Float")],
            "Constants": [],
            "Outputs": [tensor_11("hu half", [-1, 1, -1, -1], "Half")],
            "Metadata": "[ONNX Layer: cast/hu/half][ONNX Layer: first]",
        },
        {
            "Name": "first_myl0_2",
            "LayerType": "correlation",
            "Inputs": [tensor_11("hu half", [-1, 1, -1, -1], "Half")],
            "Constants": [
                tensor_11("__mye1_dconst", [8, 2, 3, 3], "Half"),
                tensor_11("__mye2_const", [1], "Float"),
            ],
            "Outputs": [tensor_11("a", [-1, 8, -1, -1], "Half")],
            "TacticName": "sm90_xmma_fprop_implicit_gemm_f16f16_f16f32_f16_nhwckrsc_nhwc",
            "Metadata": "[ONNX Layer: first][ONNX Layer: relu]",
        },
        {
            "Name": "__myl_SlicMulAdd_myl0_3",
            "LayerType": "kgen",
            "Inputs": [tensor_11("a", [-1, 8, -1, -1], "Half"), tensor_11("lengths", [4], "Int64")],
            "Constants": [tensor_11(f"__mye{part}_const", [4], "Half") for part in (3, 4)],
            "Outputs": [tensor_11("prob", [-1, 1, -1, -1], "Half")],
            "Metadata": "[ONNX Layer: second]",
        },
    ],
    "I/O Tensors": [{"Name": "hu", "IOMode": "Input", "DataType": "Float"}],
}

LOG = """Layers:
Name: __myl_CastReplConc_myl0_61, LayerType: kgen, Inputs: [ { Name: hu [profile 1], Dimensions: [1,1,-1,-1], \
Strides: [-1,-1,-1,1], StrideOrder: [3,2,1,0], Datatype: Float, Format: (Linear) Row major linear format }], \
Constants: [], Outputs: [ { Name: relu.1_126_myl1, Dimensions: [1,2,-1,-1], Strides: [-1,1,-1,2], \
StrideOrder: [3,0,2,1], Datatype: Half, Format: (NHWC) Channel major format }], TacticName: __myl_CastReplConc_0x0c, \
StreamId: 0, Metadata: [ONNX Layer: cast/hu/half][ONNX Layer: first]
Name: first [profile 1]_myl1_62, LayerType: correlation, Inputs: [ { Name: relu.1_126_myl1, \
Dimensions: [1,2,-1,-1], Strides: [-1,1,-1,2], StrideOrder: [3,0,2,1], Datatype: Half, \
Format: (NHWC) Channel major format }], Constants: [ { Name: __mye9058_dconst_myl1, Dimensions: [8,2,3,3], \
Strides: [18,1,6,2], StrideOrder: [3,0,2,1], Datatype: Half, Format: (NHWC) Channel major format }, \
{ Name: __mye13623_const_myl1, Dimensions: [1], Strides: [1], StrideOrder: [0], Datatype: Float, \
Format: (Linear) Row major linear format }], Outputs: [ { Name: a, Dimensions: [1,8,-1,-1], \
Strides: [-1,1,-1,1], StrideOrder: [3,0,2,1], Datatype: Half, Format: (NHWC) Channel major format }], \
TacticName: __myelin_CASK_STUB, StreamId: 0, Metadata: [ONNX Layer: first][ONNX Layer: relu]
Name: second_myl1_63, LayerType: correlation, Inputs: [ { Name: a, Dimensions: [1,8,-1,-1], Strides: [-1,1,-1,2], \
StrideOrder: [3,0,2,1], Datatype: Half, Format: (NHWC) Channel major format }], Constants: [ \
{ Name: __mye9087_dconst_myl1, Dimensions: [1,8,1,1], Strides: [8,1,8,8], StrideOrder: [3,0,2,1], Datatype: Half, \
Format: (NHWC) Channel major format }], Outputs: [ { Name: prob, Dimensions: [1,1,-1,-1], Strides: [-1,1,-1,1], \
StrideOrder: [3,0,2,1], Datatype: Half, Format: (NHWC) Channel major format }], TacticName: __myelin_CASK_STUB, \
StreamId: 0, Metadata: [ONNX Layer: second]

I/O Tensors:
 Name: hu, IOMode: Input, DataType: Float, Dimensions: [-1,1,-1,-1], Location: Device
"""


def in_float32(text: str) -> str:
    """The same layers in float32."""
    for half, single in (("Half", "Float"), ("FP16", "FP32"), ("f16f16_f16", "f32f32_f32")):
        text = text.replace(half, single)
    return text


def read(layout: str, *, single: bool = False) -> list[EngineLayer]:
    texts = {"10": json.dumps(TENSORRT_10), "11": json.dumps(TENSORRT_11), "log": LOG}
    text = in_float32(texts[layout]) if single else texts[layout]
    return layers_from_log(text) if layout == "log" else layers_from_json(text)


LAYOUTS = pytest.mark.parametrize("layout", ["10", "11", "log"])


@LAYOUTS
def test_an_engine_in_half_precision_is_seen_as_one(layout: str) -> None:
    shares = work_shares(read(layout), CONVOLUTIONS)
    assert shares.half == 1
    check_precision(shares, "fp16", "engine")


@LAYOUTS
def test_an_engine_in_float32_is_seen_as_one(layout: str) -> None:
    shares = work_shares(read(layout, single=True), CONVOLUTIONS)
    assert shares.single == 1
    check_precision(shares, "fp32", "engine")


@LAYOUTS
def test_float32_layers_under_the_label_fp16_are_caught(layout: str) -> None:
    shares = work_shares(read(layout, single=True), CONVOLUTIONS)
    with pytest.raises(
        EngineBuildError, match=r"engine: 0\.00% of the convolution work is in half .*not: first, second"
    ):
        check_precision(shares, "fp16", "engine")


@LAYOUTS
def test_half_layers_under_the_label_fp32_are_caught(layout: str) -> None:
    with pytest.raises(EngineBuildError, match="too little for fp32"):
        check_precision(work_shares(read(layout), CONVOLUTIONS), "fp32", "engine")


@LAYOUTS
def test_layers_have_the_names_of_the_nodes_in_them(layout: str) -> None:
    nodes = set().union(*(layer.nodes for layer in read(layout)))
    assert {"first", "second", "relu"} <= nodes


def test_one_layer_in_float32_counts_by_its_work() -> None:
    engine = copy.deepcopy(TENSORRT_10)
    engine["Layers"][1]["Weights"]["Type"] = "Float"
    shares = work_shares(layers_from_json(json.dumps(engine)), CONVOLUTIONS)
    assert (shares.half, shares.single, shares.not_half) == (0.1, 0.9, ("first",))


def test_float32_rounded_to_tf32_is_not_float32() -> None:
    engine = json.loads(in_float32(json.dumps(TENSORRT_10)))
    for layer in engine["Layers"]:
        layer["TacticName"] = "sm90_xmma_fprop_implicit_gemm_tf32f32_tf32f32_f32_nhwckrsc_nhwc"
    shares = work_shares(layers_from_json(json.dumps(engine)), CONVOLUTIONS)
    assert shares.tf32 == 1
    with pytest.raises(EngineBuildError, match="too little for fp32"):
        check_precision(shares, "fp32", "engine")


def test_a_convolution_that_is_in_no_layer_is_not_proven() -> None:
    layers = [layer for layer in read("10") if "first" not in layer.nodes]
    shares = work_shares(layers, CONVOLUTIONS)
    assert shares.unproven == 0.9
    with pytest.raises(EngineBuildError, match=r"10\.00% .*not: first"):
        check_precision(shares, "fp16", "engine")


def test_a_convolution_must_be_half_precision_in_every_profile() -> None:
    shares = work_shares([*read("log"), *read("log", single=True)], CONVOLUTIONS)
    assert (shares.half, shares.other) == (0, 1)


def test_a_sliver_of_half_precision_is_too_much_for_fp32() -> None:
    convolutions = {"first": Convolution(10**6, 72), "second": Convolution(1, 8)}
    layers = [*read("10", single=True)[:2], read("10")[2]]
    with pytest.raises(EngineBuildError, match="too little for fp32"):
        check_precision(work_shares(layers, convolutions), "fp32", "engine")


def test_a_sliver_that_is_not_proven_is_allowed() -> None:
    convolutions = {"first": Convolution(10**6, 72), "second": Convolution(1, 8)}
    check_precision(work_shares(read("10", single=True)[:2], convolutions), "fp32", "engine")


def test_weights_that_are_listed_as_inputs_are_found() -> None:
    layer = {
        "Name": "first",
        "LayerType": "correlation",
        "Inputs": [tensor_11("a", [-1, 8, -1, -1], "Half"), tensor_11("__mye1_dconst", [8, 1, 3, 3], "Half")],
    }
    (found,) = layers_from_json(json.dumps({"Layers": [layer]}))
    assert found.weights == (Weights(72, "half"),)


def test_metadata_are_read_with_the_control_character_that_separates_them() -> None:
    told = json.dumps(TENSORRT_10).replace("\\u001e", "\x1e")
    assert "\x1e" in told
    assert layers_from_json(told) == read("10")


def test_types_that_are_not_told_of_dynamic_shapes_prove_nothing_and_are_no_fault() -> None:
    engine = copy.deepcopy(TENSORRT_10)
    for layer in engine["Layers"]:
        for tensor in (*layer["Inputs"], *layer["Outputs"]):
            tensor["Format/Datatype"] = "N/A due to dynamic shapes"
    check_precision(work_shares(layers_from_json(json.dumps(engine)), CONVOLUTIONS), "fp16", "engine")
    for layer in engine["Layers"]:
        layer.pop("Weights", None)
        layer["Inputs"].append(tensor_10("weights", [8, 1, 3, 3], "N/A due to dynamic shapes"))
    shares = work_shares(layers_from_json(json.dumps(engine)), CONVOLUTIONS)
    assert (shares.unproven, shares.other) == (1, 0)


def test_an_engine_that_tells_only_names_is_refused() -> None:
    with pytest.raises(EngineBuildError, match="lists only the names"):
        layers_from_json(json.dumps({"Layers": ["first + relu", "second"], "Bindings": ["hu"]}))


@pytest.mark.parametrize("text", ["", "[]", "{}", "nonsense", "null"])
def test_an_invalid_list_of_layers_is_refused(text: str) -> None:
    with pytest.raises(EngineBuildError, match="returned unreadable output"):
        layers_from_json(text)


def test_a_log_without_layers_has_none() -> None:
    assert layers_from_log("Layers:\n\nI/O Tensors:\n Name: hu, IOMode: Input") == []


def test_layers_are_plain_values_for_a_report() -> None:
    document = layers_to_json(read("11"))
    assert json.loads(json.dumps(document)) == document


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ("Half", "half"),
        ("Float", "single"),
        ("Row major linear FP16 format", "half"),
        ("Row major linear FP32", "single"),
        ("BFloat16", "other"),
        ("Row major linear BF16 format", "other"),
        ("FP8", "other"),
        ("Int64", None),
        ("Bool", None),
        ("Thirty-two wide channel vectorized row major Int8 format.", None),
        ("N/A due to dynamic shapes", None),
        ("", None),
    ],
)
def test_types_are_distinguished(told: str, expected: str | None) -> None:
    assert number_type(told) == expected


@given(st.lists(st.tuples(st.sampled_from(["half", "single", "other"]), st.integers(0, 100)), max_size=8))
def test_shares_add_up_to_all_of_the_work(kinds: list[tuple[Any, int]]) -> None:
    layers = [
        EngineLayer("layer", "correlation", frozenset(CONVOLUTIONS), (Weights(size, kind),), "") for kind, size in kinds
    ]
    assert sum(work_shares(layers, CONVOLUTIONS).to_json().values()) == pytest.approx(1)


def test_a_graph_without_convolutions_proves_nothing() -> None:
    with pytest.raises(EngineBuildError, match="no convolutions"):
        work_shares(read("10"), {})
