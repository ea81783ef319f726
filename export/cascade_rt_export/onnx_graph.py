"""Export a PyTorch stage to a self-contained ONNX graph."""

import gc
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import onnx
import torch
import torch._dynamo.config
from onnx import ModelProto
from torch import nn

from cascade_rt.common.tensors import LONGEST_SIDE, SHORTEST_SIDE, SIDE_MULTIPLE, STAGE_SPECS, Stage, StageSpec
from cascade_rt.models.cascade_model import CascadeModel, Stage1Graph, Stage2Graph
from cascade_rt_export.batch_norms import with_folded_norms
from cascade_rt_export.narrow_convolutions import fill_vectors

OPSET = 18
"""Resize of opset 19 and later long lacked a CUDA kernel in ONNX Runtime, and nothing here needs more than 18."""
MAX_BATCH = 1024

# Batch, height and width all differ, and none is 1 or the minimum: the exporter would treat such a size as constant.
_EXAMPLE_SHAPE = (2, 1, 128, 96)


def onnx_from_stage(model: CascadeModel, stage: Stage) -> ModelProto:
    """Export a stage with dynamic batch, height and width.

    Args:
        model: The trained cascade. It is moved to the CPU.
        stage: Which stage.

    Returns:
        A model that the full ONNX checker accepts, with the tensor names of `STAGE_SPECS`, its weights inside, and no
        traces of the exporting machine.
    """
    graph: nn.Module = Stage1Graph(model) if stage == "stage1" else Stage2Graph(model)
    multiple = model.config.stage1_side_multiple if stage == "stage1" else SIDE_MULTIPLE
    return onnx_from_graph(graph, STAGE_SPECS[stage], multiple)


def onnx_from_graph(graph: nn.Module, spec: StageSpec, side_multiple: int = SIDE_MULTIPLE) -> ModelProto:
    """Export a network with one image input `[batch, 1, row, col]` and the outputs of `spec`, like `onnx_from_stage`.

    Args:
        graph: The network.
        spec: Names of its input and outputs.
        side_multiple: The height and width it accepts are multiples of this, in pixels.
    """
    lowest, highest = SHORTEST_SIDE // side_multiple, LONGEST_SIDE // side_multiple
    dynamic = {
        0: torch.export.Dim("batch", min=1, max=MAX_BATCH),
        2: side_multiple * torch.export.Dim("rows", min=lowest, max=highest),
        3: side_multiple * torch.export.Dim("cols", min=lowest, max=highest),
    }
    with quiet_exporter(), _fast_exporter():
        program = torch.onnx.export(
            with_folded_norms(graph.cpu()),
            (torch.zeros(_EXAMPLE_SHAPE),),
            input_names=[tensor.name for tensor in spec.inputs],
            output_names=[tensor.name for tensor in spec.outputs],
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            dynamic_shapes=(dynamic,),
            verbose=False,
        )
    if program is None:
        raise TypeError("torch.onnx.export returned no program")
    exported = program.model_proto
    _name_axes(exported, spec)
    _strip_traces(exported)
    fill_vectors(exported, side_multiple)
    onnx.checker.check_model(exported, full_check=True)
    return exported


@contextmanager
def quiet_exporter() -> Iterator[None]:
    """Silence torch 2.13's warnings about its own deprecated calls and about torchvision, which is not needed here."""
    log = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        log.setLevel(level)


@contextmanager
def _fast_exporter() -> Iterator[None]:
    """Disable two things that take much of the export time and do not change a byte of the graph.

    torch caches the output shapes of operators, but with symbolic sizes caching a shape costs more than inferring it
    again. The garbage collector repeatedly scans the millions of objects that an export creates and frees few of them.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        with torch._dynamo.config.patch(fake_tensor_cache_enabled=False):
            yield
    finally:
        if collects:
            gc.enable()


def _name_axes(exported: ModelProto, spec: StageSpec) -> None:
    """Give the axes of inputs and outputs the names in the spec instead of the exporter's expressions."""
    for values, tensors in ((exported.graph.input, spec.inputs), (exported.graph.output, spec.outputs)):
        for value, tensor in zip(values, tensors, strict=True):
            dims = value.type.tensor_type.shape.dim
            for dim, axis in zip(dims, tensor.shape, strict=True):
                if isinstance(axis, str):
                    dim.dim_param = axis
                else:
                    dim.dim_value = axis
    # Shapes inside the graph use the exporter's symbols, and every runtime infers them again anyway.
    del exported.graph.value_info[:]


def _strip_traces(exported: ModelProto) -> None:
    """Remove stack traces and notes, which contain paths of the exporting machine."""
    exported.doc_string = ""
    exported.graph.doc_string = ""
    for holder in (exported, exported.graph, *exported.graph.node, *exported.graph.input, *exported.graph.output):
        del holder.metadata_props[:]
        holder.doc_string = ""
    for tensor in exported.graph.initializer:
        del tensor.metadata_props[:]
        tensor.doc_string = ""
