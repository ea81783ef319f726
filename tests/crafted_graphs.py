"""Graphs of standard operators that are wrong in a way of their own, or that a library may choke on.

Run as a program it opens them one after the other and prints what becomes of each: it may be ended by one of them.

    python -m tests.crafted_graphs BACKEND FIRST
"""

import hashlib
import resource
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from cascade_rt.bundles.bundle import Bundle, embedded_bundle_path, read_bundle
from cascade_rt.bundles.graph_checks import check_graph
from cascade_rt.common.hashing import FileRecord
from cascade_rt.engines import open_engine
from cascade_rt.engines.self_test import self_test
from cascade_rt.errors import CascadeError

MEMORY, CPU_SECONDS = 4 << 30, 240
_HUGE = [0, 1, -1, 3, 1 << 20, 1 << 31, -(1 << 31), 1 << 40, (1 << 63) - 1, -(1 << 63)]

Inside = tuple[list[NodeProto], dict[str, Any]]
"""Nodes that make `x` of `hu` and of constants, and these."""


def stage1(inside: Inside | None = None, change: Callable[[ModelProto], object] = lambda _: None) -> bytes:
    """A graph with the tensors of stage 1, with something inside whose result does not count."""
    nodes, constants = inside or ([], {})
    result = nodes[-1].output[0] if nodes else "hu"
    every = [
        *nodes,
        helper.make_node("Cast", [result], ["float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMax", ["float"], ["one"], keepdims=0),
        helper.make_node("Mul", ["one", "zero"], ["nothing"]),
        helper.make_node("Add", ["hu", "nothing"], ["image"]),
        helper.make_node("Sigmoid", ["image"], ["organ_prob"]),
        helper.make_node("ReduceMax", ["organ_prob", "rows"], ["row_max"], keepdims=0),
        helper.make_node("ReduceMax", ["organ_prob", "cols"], ["col_max"], keepdims=0),
        helper.make_node("Relu", ["image"], ["salient"]),
    ]
    constants = {
        "zero": np.float32(0),
        "rows": np.array([1, 3]),
        "cols": np.array([1, 2]),
        **constants,
    }
    axes = ["batch", 1, "height", "width"]
    shapes = {"organ_prob": axes, "row_max": axes[::2], "col_max": axes[::3], "salient": axes}
    graph = helper.make_graph(
        every,
        "stage1",
        [helper.make_tensor_value_info("hu", TensorProto.FLOAT, axes)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    change(model)
    return model.SerializeToString()


def operators(random: np.random.Generator) -> list[tuple[str, Inside]]:
    """One node of each operator that takes numbers from a graph, with numbers that are bad or hard."""

    def ints(count: int) -> np.ndarray:
        return random.choice(np.array(_HUGE, dtype=np.int64), count)

    def one(operator: str, *constants: Any, image: str | None = "hu", **attributes: Any) -> tuple[str, Inside]:
        names = {f"c{number}": value for number, value in enumerate(constants)}
        inputs = [*([image] if image else []), *names]
        return operator, ([helper.make_node(operator, inputs, ["x"], **attributes)], names)

    count, axis = int(ints(1)[0]), int(random.integers(-9, 9))
    return [
        one("Pad", ints(8)),
        one("Split", ints(2), axis=axis),
        one("Tile", ints(4)),
        one("Tile", np.array([1, 1, 1 << 20, 1 << 20])),
        one("Range", np.int64(0), np.int64(count), ints(1)[0], image=None),
        one("Range", np.float32(0), np.float32(np.nan), np.float32(0), image=None),
        one("Expand", ints(4)),
        one("ConstantOfShape", ints(2), image=None),
        one("Reshape", ints(3)),
        one("Reshape", np.array([-1, -1, 7])),
        one("Slice", ints(2), ints(2), np.array([2, 3]), ints(2)),
        one("Slice", ints(1), ints(1), ints(1), np.array([0])),
        one("Gather", ints(3), axis=axis),
        one("Squeeze", ints(2)),
        one("Unsqueeze", np.array([0, 0, axis])),
        one("Concat", np.zeros((2, 3), np.float32), axis=axis),
        one("DepthToSpace", blocksize=int(random.choice([2, 3, 1 << 15]))),
        one("SpaceToDepth", blocksize=int(random.choice([5, 7, 1 << 15]))),
        one("Resize", np.zeros(0, np.float32), random.choice([0, -1, np.nan, 1e9], 4).astype(np.float32)),
        one("Resize", np.zeros(0, np.float32), np.zeros(0, np.float32), ints(4)),
        one("AveragePool", kernel_shape=[500, 500], strides=[1, 1]),
        one("MaxPool", kernel_shape=[3, 3], pads=[9, 9, 9, 9], strides=[60000, 60000]),
        one("Conv", np.zeros((2, 5, 3, 3), np.float32)),
        one("Conv", np.zeros((2, 1, 3, 3), np.float32), group=2),
        one("Conv", np.zeros((0, 1, 3, 3), np.float32)),
        one("Conv", np.zeros((1, 1, 3, 3), np.float32), dilations=[65536, 65536]),
        one("ConvTranspose", np.zeros((1, 1, 2, 2), np.float32), strides=[2, 2], output_padding=[1 << 20, 0]),
        one("ConvTranspose", np.zeros((1, 1, 2, 2), np.float32), strides=[65000, 65000]),
        one("MatMul", np.zeros((7, 3), np.float32)),
        one("Gemm", np.zeros((7, 3), np.float32)),
        one("Pow", np.array([2, -3]), ints(1), image=None),
        one("ReduceMean", np.zeros((0, 2), np.int32), np.array([0]), image=None),
        one("ReduceMean", np.zeros((2, 0, 3), np.float32), np.array([1]), image=None),
        one("ReduceMax", np.zeros((0,), np.float32), image=None),
        one("ReduceProd", ints(40), image=None),
        one("ReduceSum", ints(1)),
        one("ArgMax", np.zeros((0, 2), np.float32), axis=0, image=None),
        one("ArgMax", axis=axis),
        one("Cast", to=TensorProto.INT32),
        one("Cast", to=int(random.integers(17, 99))),
        one("LayerNormalization", np.ones(3, np.float32), axis=axis),
        one("Softmax", axis=axis),
        one("LogSoftmax", axis=99),
        one("Transpose", perm=[0, 0, 1, 2]),
        one("Transpose", perm=[3, 2, 1, 99]),
        one("Flatten", axis=99),
        one("Clip", np.float32(1), np.float32(-1)),
        one("BatchNormalization", *[np.ones(3, np.float32)] * 4),
        one("InstanceNormalization", np.ones(4, np.float32), np.ones(1, np.float32)),
        one("GroupNormalization", np.ones(1, np.float32), np.ones(1, np.float32), num_groups=3),
        one("LpNormalization", axis=axis, p=7),
        one("PRelu", np.ones((3, 5), np.float32)),
        one("Where", np.ones((3, 5), np.float32), np.ones((2,), np.float32), image=None),
        one("Max", np.ones((3, 5), np.int32)),
        one("Equal", np.ones((3, 5), np.float32)),
        one("Mod", np.float32(0), fmod=1),
        one("Mod", np.array(5), image=None),
        one("Div", ints(3), np.array([3, 1 << 40, 7]), image=None),
        one("Div", ints(3), ints(3), image=None),
        one("Not"),
        one("Add"),
    ]


def bad_models() -> list[tuple[str, Callable[[ModelProto], object]]]:
    """Changes of a graph as a whole."""

    def set_dims(*dims: int) -> Callable[[ModelProto], object]:
        return lambda model: model.graph.initializer[0].dims.extend(dims)

    def returning(node: NodeProto) -> Callable[[ModelProto], object]:
        def change(model: ModelProto) -> None:
            model.graph.node.remove(model.graph.node[-1])
            model.graph.node.append(node)

        return change

    return [
        ("input renamed", lambda model: setattr(model.graph.input[0], "name", "nope")),
        ("input named twice", lambda model: model.graph.input.append(model.graph.input[0])),
        ("name of an input is no text a terminal may show", lambda m: setattr(m.graph.input[0], "name", "\x1b[2J")),
        ("output renamed", lambda model: setattr(model.graph.output[0], "name", "nope")),
        ("output missing", lambda model: model.graph.output.pop()),
        ("output of integers", lambda m: setattr(m.graph.output[0].type.tensor_type, "elem_type", TensorProto.INT64)),
        ("input of integers", lambda m: setattr(m.graph.input[0].type.tensor_type, "elem_type", TensorProto.INT64)),
        ("no type of its input", lambda model: model.graph.input[0].ClearField("type")),
        ("a circle", lambda model: model.graph.node[-1].input.__setitem__(0, "salient")),
        ("an input that nobody makes", lambda model: model.graph.node[-1].input.__setitem__(0, "nobody")),
        ("a node without inputs", lambda model: model.graph.node[-1].ClearField("input")),
        ("a node without outputs", lambda model: model.graph.node[-1].ClearField("output")),
        ("a thousand inputs", lambda model: model.graph.node[-1].input.extend(["hu"] * 1000)),
        ("a tensor larger than its data", set_dims(1 << 40)),
        ("a tensor of negative size", set_dims(-5)),
        ("a tensor whose size has no number", set_dims(1 << 62, 1 << 62)),
        ("a type that does not exist", lambda model: setattr(model.graph.initializer[0], "data_type", 77)),
        ("operators of another time", lambda model: setattr(model.opset_import[0], "version", 1 << 40)),
        ("no set of operators", lambda model: model.ClearField("opset_import")),
        ("a format of another time", lambda model: setattr(model, "ir_version", 1 << 40)),
        ("a scalar in place of an image", returning(helper.make_node("ReduceMax", ["image"], ["salient"], keepdims=0))),
        ("one pixel in place of an image", returning(helper.make_node("ReduceMax", ["image"], ["salient"]))),
        ("an image on its side", returning(helper.make_node("Transpose", ["image"], ["salient"], perm=[0, 1, 3, 2]))),
        ("a shape in place of an image", returning(helper.make_node("Shape", ["image"], ["salient"]))),
    ]


def all_graphs() -> list[tuple[str, bytes]]:
    """Every graph and what it is, the same ones each time."""
    random = np.random.default_rng(20260)
    found = [(name, stage1(inside)) for name, inside in operators(random)]
    return found + [(name, stage1(change=change)) for name, change in bad_models()]


def outcome(bundle: Bundle, content: bytes, backend: Any) -> str:
    """What becomes of a graph that is opened as stage 1: a code, or `bug:` and the class of what no one handled."""
    try:
        check_graph(content, "crafted.onnx")
        with closing(open_engine(bundle, "stage1", backend)) as engine:
            self_test(engine, bundle.read_golden()["stage1"])
    except CascadeError as error:
        return f"{error.code} {error.exit_code} {error}"
    except BaseException:  # noqa: BLE001  all else is what the test looks for
        return "bug: " + traceback.format_exc().strip().splitlines()[-1]
    return "opened"


def say(text: str) -> None:
    """Print at once: the next graph may end the process."""
    sys.stdout.write(text)
    sys.stdout.flush()


def main(backend: str, first: int) -> None:
    """Open the graphs from one on, within the limits."""
    sound = read_bundle(embedded_bundle_path("phantom"))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(sound.path / "golden.bin", folder)
        for number, (_, content) in enumerate(all_graphs()[first:], first):
            say(f"{number} ")
            (Path(folder) / "stage1_fp32.onnx").write_bytes(content)
            record = FileRecord(hashlib.sha256(content).hexdigest(), len(content))
            manifest = replace(sound.manifest, files={**sound.manifest.files, "stage1_fp32.onnx": record})
            say(ascii(outcome(replace(sound, path=Path(folder), manifest=manifest), content, backend)) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
