"""Reading what TensorRT tells of the layers of an engine it compiled.

The inspector of an opened engine tells it in JSON, in two layouts: TensorRT 10 gives a tensor one text for format and
type, TensorRT 11 two fields. While it compiles, TensorRT writes the same layers to its log, one in a line; that is all
there is on a machine without a driver, where no engine can be opened.
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
    """A layer of a compiled engine, which can be several nodes of the graph, or part of one."""

    name: str
    kind: str
    """What TensorRT calls its kind."""
    nodes: frozenset[str]
    """Names of the nodes of the ONNX graph in it."""
    weights: tuple[Weights, ...]
    tactic: str
    """Name of the kernel."""


_NODE = re.compile(r"\[ONNX Layer: ([^\]]*)\]")
_HALF = re.compile(r"\b(half|fp16)\b", re.IGNORECASE)
_SINGLE = re.compile(r"\b(float|fp32|tf32)\b", re.IGNORECASE)
_WHOLE = re.compile(r"\b(u?int\d+|bool)\b", re.IGNORECASE)


def layers_from_json(text: str) -> list[EngineLayer]:
    """Read the layers from the inspector's JSON, of TensorRT 10 or 11.

    Raises:
        EngineBuildError: It is no such JSON, or tells no more than the names.
    """
    try:
        layers = json.loads(text)["Layers"]
    except (ValueError, KeyError, TypeError) as error:
        raise EngineBuildError(f"the engine inspector told nothing that can be read: {text[:80]!r}") from error
    if not layers or not all(isinstance(layer, dict) for layer in layers):
        raise EngineBuildError("the engine tells no more than the names of its layers; build it again, in detail")
    return [_layer_of(layer) for layer in layers]


def _layer_of(layer: Mapping[str, Any]) -> EngineLayer:
    constants = list(_weights_of(layer))
    # Where nothing is listed as weights or constant, weights are inputs: those whose every length is known.
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
    """What a text like `Half` or `Row major linear FP16 format` says of a type; None: nothing, or whole numbers."""
    if not told or _WHOLE.search(told):
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
    """Read the layers from the part of the log that lists them; none where it does not."""
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
    """The layers as plain values, for a report."""
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
