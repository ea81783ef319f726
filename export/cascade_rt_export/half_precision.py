"""Convert a float32 graph to one that computes in float16 wherever that is safe.

ONNX Runtime's own converter was tried and rejected; see docs/decisions/0011.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from cascade_rt.engines.base import Array
from cascade_rt.errors import BundleError
from cascade_rt_export.conv_work import multiplications
from cascade_rt_export.float_tensors import HALF, SINGLE, computes_in_half, float_tensors, half_inputs, opset_of
from cascade_rt_export.fp16_rules import Wiring, image_convolutions
from cascade_rt_export.image_halves import image_halves, weight_halves
from cascade_rt_export.keep_plan import FAINT_LARGEST, FAINT_SHARE, HEADROOM, KeptNode, kept_table, plan_kept
from cascade_rt_export.value_ranges import observe_ranges

_SUFFIX = {SINGLE: "/single", HALF: "/half"}


@dataclass(frozen=True, slots=True)
class HalfPrecision:
    """A half-precision graph, and the record of which nodes stay in float32 and why."""

    graph: ModelProto
    kept: list[dict[str, Any]]
    """Rule, reason and names of the nodes that stay in float32, as plain values."""
    calibration: dict[str, Any]
    """Inputs that the ranges were observed on, and the limits they were compared with, as plain values."""


Kept = tuple[KeptNode, ...]


def half_precision_graph(
    graph: ModelProto,
    inputs: Iterable[Mapping[str, Array]],
    *,
    source: str,
    fewer: Callable[[Kept], Kept] | None = None,
) -> HalfPrecision:
    """Observe a float32 graph, choose the nodes that stay in float32, and convert the rest.

    Args:
        graph: The graph. It is not modified.
        inputs: Representative calibration inputs, consumed one by one.
        source: Description of the inputs.
        fewer: Selects the planned nodes that the task needs, such as `half_search.smallest_kept`. Defaults to all.

    Raises:
        BundleError: The graph cannot be converted, or computes NaN or infinity.
        InputError: There are no inputs.
    """
    shapes: list[list[int]] = []
    work: dict[str, int] = {}

    def noted() -> Iterator[Mapping[str, Array]]:
        for feeds in inputs:
            shapes.extend(list(array.shape) for array in feeds.values())
            work.update(work or multiplications(graph, feeds))
            yield feeds

    ranges = observe_ranges(graph, noted())
    planned = plan_kept(graph, ranges, work)
    kept = planned if fewer is None else fewer(planned)
    limits = {"headroom": HEADROOM, "faint_share": FAINT_SHARE, "faint_largest": FAINT_LARGEST}
    calibration = {"source": source, "inputs": shapes, "limits": limits}
    return HalfPrecision(to_half(graph, kept), kept_table(kept), calibration)


def to_half(graph: ModelProto, kept: Iterable[KeptNode]) -> ModelProto:
    """Convert a graph to float16, except for its inputs, its outputs and the kept nodes.

    Values between two kept nodes, or between a kept node and a graph input or output, stay in float32. A value is
    rounded only where a half-precision node reads or writes it. A weight that nodes of both kinds read is stored twice.
    Nodes whose operator has no half-precision form stay in float32 even if they are not kept. Convolutions that read an
    image and are not kept read it in halves.

    Args:
        graph: The float32 graph. It is not modified.
        kept: Nodes that stay in float32.

    Returns:
        A graph with the same opset, inputs and outputs that the full ONNX checker accepts.

    Raises:
        BundleError: The graph contains subgraphs, functions or float16 tensors, or lacks one of the kept nodes.
    """
    names = {node.name for node in kept}
    if unknown := names - {node.name for node in graph.graph.node}:
        raise BundleError(f"the graph has no nodes {sorted(unknown)} to keep; plan again for this graph")
    converted = _Conversion(graph, names).run()
    onnx.checker.check_model(converted, full_check=True)
    return converted


class _Conversion:
    """One pass over the nodes of a graph, which are in topological order."""

    def __init__(self, graph: ModelProto, kept: set[str]) -> None:
        self.source = graph
        self.kept = kept
        self.floats = float_tensors(graph)
        self.opset = opset_of(graph)
        self.outputs = {value.name for value in graph.graph.output}
        self.weights = {tensor.name: tensor for tensor in graph.graph.initializer}
        self.of_images = {node.name for node in image_convolutions(Wiring(graph))} - kept
        self.halves: dict[str, str] = {}
        """The tensor with the halves of each image and each weight that was split so far."""
        self.nodes: list[NodeProto] = []
        self.stored: dict[str, TensorProto] = {}
        # The name of each float tensor in each type it exists in.
        self.names: dict[tuple[str, int], str] = {(value.name, SINGLE): value.name for value in graph.graph.input}

    def run(self) -> ModelProto:
        """Return the converted model."""
        for node in self.source.graph.node:
            self._convert(node)
        converted = ModelProto()
        converted.CopyFrom(self.source)
        for field in (converted.graph.node, converted.graph.initializer, converted.graph.value_info):
            del field[:]
        converted.graph.node.extend(self.nodes)
        converted.graph.initializer.extend(self.stored.values())
        return converted

    def _convert(self, source: NodeProto) -> None:
        node = NodeProto()
        node.CopyFrom(source)
        halved = source.name not in self.kept and computes_in_half(source, self.floats, self.opset)
        takes = half_inputs(source, self.floats, self.opset)
        split = source.name in self.of_images
        if split:
            node.input[:2] = [self._split_image(source.input[0]), self._split_weight(source.input[1])]
        for index, name in enumerate(source.input):
            if split and index < 2:
                continue
            if name in self.floats:
                node.input[index] = self._read(name, HALF if halved and takes[index] else SINGLE)
            elif name in self.weights:
                self.stored[name] = self.weights[name]
        self.nodes.append(node)
        for index, name in enumerate(source.output):
            if name in self.floats:
                node.output[index] = self._write(name, HALF if halved else SINGLE)
        if halved and node.op_type == "Cast":
            node.attribute[0].i = HALF

    def _split_image(self, name: str) -> str:
        """Return the name of the tensor with the halves of an image, and add the nodes that make it once."""
        if name not in self.halves:
            nodes, self.halves[name] = image_halves(self._read(name, SINGLE))
            self.nodes.extend(nodes)
        return self.halves[name]

    def _split_weight(self, name: str) -> str:
        """Store the weight to apply to the halves of an image, and return its name."""
        if name not in self.halves:
            self.halves[name] = name if name not in self.stored else f"{name}/halves"
            halves = weight_halves(numpy_helper.to_array(self.weights[name]))
            self.stored[self.halves[name]] = numpy_helper.from_array(halves, self.halves[name])
        return self.halves[name]

    def _read(self, name: str, kind: int) -> str:
        """Return the name of a tensor in a type, adding a cast if it exists only in the other type."""
        if (name, kind) not in self.names:
            if name in self.weights:
                self.names[name, kind] = self._store(name, kind)
            else:
                other = self.names[name, SINGLE if kind == HALF else HALF]
                self.names[name, kind] = self._cast(other, name + _SUFFIX[kind], kind)
        return self.names[name, kind]

    def _write(self, name: str, kind: int) -> str:
        """Return the name under which a node writes a tensor. Graph outputs are cast back to float32 immediately."""
        written = name + _SUFFIX[HALF] if kind == HALF and name in self.outputs else name
        self.names[name, kind] = written
        if written != name:
            self.names[name, SINGLE] = self._cast(written, name, SINGLE)
        return written

    def _cast(self, source: str, target: str, kind: int) -> str:
        self.nodes.append(helper.make_node("Cast", [source], [target], name=f"cast/{target}", to=kind))
        return target

    def _store(self, name: str, kind: int) -> str:
        """Store a weight in a type and return its name. The second copy of a weight gets a suffix."""
        tensor = self.weights[name]
        stored = name if name not in self.stored else name + _SUFFIX[kind]
        if kind == HALF:
            # Values that are too large become infinite, as on any machine. The plan keeps the nodes that read them.
            with np.errstate(over="ignore"):
                tensor = numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16))
        self.stored[stored] = TensorProto()
        self.stored[stored].CopyFrom(tensor)
        self.stored[stored].name = stored
        return stored
