"""Parse TensorRT's description of the layers of a compiled engine.

The inspector of an opened engine returns JSON in two layouts: TensorRT 10 describes the format and type of a tensor in
one string, TensorRT 11 in two fields. During compilation, TensorRT writes the same layers to its log, one per line. On
a machine without a driver, where no engine can be opened, the log is the only source.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from cascade_rt.errors import EngineBuildError

NumberType = Literal["half", "single", "other"]


@dataclass(frozen=True, slots=True)
class Weights:
    """A constant of a layer that holds floating-point numbers."""

    elements: int
    type: NumberType


@dataclass(frozen=True, slots=True)
class EngineLayer:
    """A layer of a compiled engine. It may cover several nodes of the graph, or part of one."""

    name: str
    kind: str
    """TensorRT's layer type."""
    nodes: frozenset[str]
    """Names of the ONNX nodes that the layer covers."""
    weights: tuple[Weights, ...]
    tactic: str
    """Name of the kernel."""


_NODE = re.compile(r"\[ONNX Layer: ([^\]]*)\]")
_HALF = re.compile(r"\b(half|fp16)\b", re.IGNORECASE)
_SINGLE = re.compile(r"\b(float|fp32|tf32)\b", re.IGNORECASE)
_NOT_TOLD = "N/A"
_WHOLE = re.compile(r"\b(u?int\d+|bool)\b", re.IGNORECASE)


def layers_from_json(text: str) -> list[EngineLayer]:
    """Read the layers from the inspector's JSON, of TensorRT 10 or 11.

    Raises:
        EngineBuildError: The text is not such JSON, or holds only the names of the layers.
    """
    try:
        # Not strict, because TensorRT separates the parts of a layer's metadata by the control character 0x1e.
        layers = json.loads(text, strict=False)["Layers"]
        if layers and all(isinstance(layer, dict) for layer in layers):
            return [_layer_of(layer) for layer in layers]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise EngineBuildError(f"the engine inspector returned unreadable output: {text[:80]!r}") from error
    raise EngineBuildError("the engine lists only the names of its layers; build it with detailed profiling")


def _layer_of(layer: Mapping[str, Any]) -> EngineLayer:
    constants = list(_weights_of(layer))
    # If no weights or constants are listed, the weights are among the inputs: those whose dimensions are all known.
    if not constants:
        constants = [weights for tensor in layer.get("Inputs", ()) for weights in _constant(tensor)]
    name, told = str(layer.get("Name", "")), str(layer.get("Metadata", ""))
    return EngineLayer(
        name=name,
        kind=str(layer.get("LayerType", "")),
        nodes=frozenset(_NODE.findall(told) or name.split(" + ")),
        weights=tuple(constants),
        tactic=str(layer.get("TacticName", "")),
    )


def _weights_of(layer: Mapping[str, Any]) -> Iterator[Weights]:
    weights = layer.get("Weights")
    if isinstance(weights, dict) and (kind := number_type(str(weights.get("Type", "")))):
        yield Weights(int(weights.get("Count", 0)), kind)
    for tensor in layer.get("Constants", ()):
        yield from _constant(tensor)


def _constant(tensor: Mapping[str, Any]) -> Iterator[Weights]:
    lengths = tensor.get("Dimensions", ())
    told = next((tensor[key] for key in ("Datatype", "DataType", "Format/Datatype") if key in tensor), "")
    kind = number_type(str(told))
    if kind is not None and all(length >= 0 for length in lengths):
        yield Weights(math.prod(lengths), kind)


def number_type(told: str) -> NumberType | None:
    """Parse the type in a text such as `Half` or `Row major linear FP16 format`.

    Returns None if the text is empty, names an integer or Boolean type, or says that TensorRT does not tell, as in
    `N/A due to dynamic shapes`.
    """
    if not told or told.startswith(_NOT_TOLD) or _WHOLE.search(told):
        return None
    if _HALF.search(told):
        return "half"
    return "single" if _SINGLE.search(told) else "other"


_FIELD = {
    "kind": re.compile(r", LayerType: (\w+)"),
    "constants": re.compile(r", Constants: \[(.*?)\], Outputs: \["),
    "tactic": re.compile(r", TacticName: ([^,]*)"),
}
_TENSOR = re.compile(r"Dimensions: \[([-\d,]*)\].*?Datatype: (\w+)")
_COUNT = re.compile(r", Weights: \{ ?Type: (\w+), Count: (\d+)")


def layers_from_log(text: str) -> list[EngineLayer]:
    """Read the layers listed in the build log. Returns an empty list if it lists none."""
    return [_layer_in(line) for line in text.splitlines() if line.startswith("Name: ") and ", LayerType: " in line]


def _layer_in(line: str) -> EngineLayer:
    found = {name: match.group(1) if (match := field.search(line)) else "" for name, field in _FIELD.items()}
    counts = [(int(count), told) for told, count in _COUNT.findall(line)]
    counts += [(_elements(lengths), told) for lengths, told in _TENSOR.findall(found["constants"])]
    return EngineLayer(
        name=line.removeprefix("Name: ").partition(", LayerType: ")[0],
        kind=found["kind"],
        nodes=frozenset(_NODE.findall(line)),
        weights=tuple(Weights(count, kind) for count, told in counts if (kind := number_type(told)) is not None),
        tactic=found["tactic"],
    )


def _elements(lengths: str) -> int:
    return math.prod(int(length) for length in lengths.split(",") if length)


def layers_to_json(layers: Sequence[EngineLayer]) -> list[dict[str, Any]]:
    """Return the layers as plain values for a report."""
    return [
        {
            "name": layer.name,
            "kind": layer.kind,
            "nodes": sorted(layer.nodes),
            "weights": [{"elements": weights.elements, "type": weights.type} for weights in layer.weights],
            "tactic": layer.tactic,
        }
        for layer in layers
    ]
