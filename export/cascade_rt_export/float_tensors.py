"""Find the float32 tensors of a graph, and the inputs and outputs for which an operator supports half precision."""

from collections.abc import Sequence

import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, defs

from cascade_rt.errors import BundleError

SINGLE, HALF = int(TensorProto.FLOAT), int(TensorProto.FLOAT16)


def opset_of(graph: ModelProto) -> int:
    """Return the version of the standard operator set that a graph uses."""
    return max(int(entry.version) for entry in graph.opset_import if entry.domain in ("", "ai.onnx"))


def float_tensors(graph: ModelProto) -> frozenset[str]:
    """Return the names of all float32 tensors of a graph: inputs, weights and computed tensors.

    Raises:
        BundleError: The graph has subgraphs or functions, tensors of float16 or unknown type, or nodes without a unique
            name.
    """
    names = [node.name for node in graph.graph.node]
    if "" in names or len(set(names)) < len(names):
        raise BundleError("the graph has nodes without a unique name; export it again")
    if graph.functions or any(attribute.HasField("g") for node in graph.graph.node for attribute in node.attribute):
        raise BundleError("the graph has subgraphs or functions, which half precision does not support; inline them")
    types = _element_types(onnx.shape_inference.infer_shapes(graph, strict_mode=True).graph)
    for node in graph.graph.node:
        for name in filter(None, node.output):
            if types.get(name, HALF) == HALF:
                raise BundleError(f"tensor {name!r} is float16 or of unknown type; start from the float32 graph")
    return frozenset(name for name, kind in types.items() if kind == SINGLE)


def _element_types(graph: GraphProto) -> dict[str, int]:
    values = (*graph.input, *graph.output, *graph.value_info)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    return types | {tensor.name: tensor.data_type for tensor in graph.initializer}


def half_inputs(node: NodeProto, floats: frozenset[str], opset: int) -> tuple[bool, ...]:
    """Return, for each input of a node, whether it is a float32 tensor that the operator also accepts as float16."""
    schema = defs.get_schema(node.op_type, opset, node.domain)
    allowed = _half_types(schema)
    return tuple(
        name in floats and _formal(schema.inputs, index).type_str in allowed for index, name in enumerate(node.input)
    )


def computes_in_half(node: NodeProto, floats: frozenset[str], opset: int) -> bool:
    """Return whether the operator can compute the float32 outputs of a node in half precision.

    Returns False for nodes that create a tensor from nothing, such as `ConstantOfShape`, because their output type is
    set by an attribute.
    """
    if not node.input:
        return False
    schema = defs.get_schema(node.op_type, opset, node.domain)
    allowed = _half_types(schema)
    follows = {_formal(schema.inputs, index).type_str for index, name in enumerate(node.input) if name in floats}
    made = {_formal(schema.outputs, index).type_str for index, name in enumerate(node.output) if name in floats}
    if node.op_type == "Cast":
        return bool(made)
    return bool(made) and made <= allowed and made <= follows


def _half_types(schema: defs.OpSchema) -> frozenset[str]:
    """Return the type variables of an operator that can be float16."""
    return frozenset(
        constraint.type_param_str
        for constraint in schema.type_constraints
        if "tensor(float16)" in constraint.allowed_type_strs
    )


def _formal(parameters: Sequence[defs.OpSchema.FormalParameter], index: int) -> defs.OpSchema.FormalParameter:
    """Return the declared parameter at a position. The last parameter of a variadic operator covers all that follow."""
    return parameters[min(index, len(parameters) - 1)]
