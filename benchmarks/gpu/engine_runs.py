"""Stages on ONNX Runtime and on TensorRT, from and to the memory of the GPU and on PyTorch's stream."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.gpu.clock import Run
from benchmarks.gpu.network import Network, Task
from cascade_rt.common.packages import backend_named, import_package
from cascade_rt.common.tensors import STAGE_SPECS, Precision, Stage
from cascade_rt.engines.onnxruntime_session import CUDA, open_gpu_session
from cascade_rt.engines.tensorrt_api import tensorrt_log
from cascade_rt.engines.tensorrt_engine import batch_parts
from cascade_rt.errors import BackendUnavailableError, EngineError


def open_onnxruntime_cuda(
    network: Network, task: Task, *, precision: Precision = "fp32", allow_tf32: bool = False, by_trial: bool = False
) -> Run:
    """ONNX Runtime with the provider of the engine `onnxruntime-cuda`, on PyTorch's stream.

    Args:
        network: The network.
        task: The task.
        precision: Which graph.
        allow_tf32: Whether float32 may be rounded to TF32; the engine does not.
        by_trial: Whether cuDNN chooses kernels by trial; the engine takes those that it holds for the best.
    """
    stream = torch.cuda.current_stream()
    options = {
        **CUDA.options,
        "use_tf32": str(int(allow_tf32)),
        "cudnn_conv_algo_search": "EXHAUSTIVE" if by_trial else CUDA.options["cudnn_conv_algo_search"],
        # On a stream of its own it would not be seen by the clock.
        "user_compute_stream": str(stream.cuda_stream),
    }
    path = network.graph(task.stage, precision)
    session = open_gpu_session(path.read_bytes(), path.name, replace(CUDA, options=options), "onnxruntime-cuda")
    return bound_run(session, task.stage, images_and_results(network, task))


def bound_run(session: Any, stage: Stage, tensors: dict[str, Tensor]) -> Run:
    """A run of a session of ONNX Runtime that reads and writes tensors of PyTorch where they lie.

    Args:
        session: The session.
        stage: The stage that it runs.
        tensors: All inputs and outputs by name, contiguous, float32, on the session's device.
    """
    import onnxruntime

    spec, binding = STAGE_SPECS[stage], session.io_binding()
    for names, bind in ((spec.inputs, binding.bind_input), (spec.outputs, binding.bind_output)):
        for name in (each.name for each in names):
            tensor = tensors[name]
            bind(name, tensor.device.type, 0, np.float32, tuple(tensor.shape), tensor.data_ptr())
    unsynchronised = onnxruntime.RunOptions()
    # Otherwise each run would be awaited, which none of the others is.
    unsynchronised.add_run_config_entry("disable_synchronize_execution_providers", "1")

    def run() -> object:
        session.run_with_iobinding(binding, unsynchronised)
        # The binding holds addresses only, so the tensors have to live as long as this does.
        return tensors

    return run


def open_tensorrt(network: Network, task: Task, *, precision: Precision = "fp32", recorded: bool = False) -> Run:
    """TensorRT with the plan that cascade-rt builds, on PyTorch's stream; large batches in parts, as its engine does.

    Args:
        network: The network.
        task: The task.
        precision: Which graph.
        recorded: As a CUDA graph, which is how the engine `tensorrt` runs.
    """
    trt = import_package("tensorrt", needed_by=backend_named("tensorrt"), extra="tensorrt")
    log = tensorrt_log("tensorrt")
    runtime = trt.Runtime(log.logger)
    engine = runtime.deserialize_cuda_engine(_plan(network, task.stage, precision))
    if engine is None:
        raise BackendUnavailableError(f"TensorRT refuses the engine ({log.last_error})")
    context = engine.create_execution_context()
    (source,) = STAGE_SPECS[task.stage].inputs
    _, _, (largest_batch, *_) = engine.get_tensor_profile_shape(source.name, 0)
    tensors = images_and_results(network, task)
    parts = [
        {name: tensor[rows] for name, tensor in tensors.items()} for rows in batch_parts(task.batch, largest_batch)
    ]

    def run() -> object:
        stream = torch.cuda.current_stream().cuda_stream
        for part in parts:
            done = context.set_input_shape(source.name, tuple(part[source.name].shape))
            done &= all(context.set_tensor_address(name, tensor.data_ptr()) for name, tensor in part.items())
            if not (done and context.execute_async_v3(stream)):
                raise EngineError(f"TensorRT cannot run ({log.last_error})")
        # They have to live as long as the context that they made.
        return runtime, engine

    return _record(run) if recorded else run


def _record(run: Run) -> Run:
    """Record a run as a CUDA graph."""
    run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()

    def replay() -> object:
        graph.replay()
        return run

    return replay


def images_and_results(network: Network, task: Task) -> dict[str, Tensor]:
    """Memory on the device for all inputs and outputs of a stage by name; the image is filled."""
    spec = STAGE_SPECS[task.stage]
    lengths = {"batch": task.batch, "height": task.side, "width": task.side}
    shapes = {
        tensor.name: [lengths[axis] if isinstance(axis, str) else axis for axis in tensor.shape]
        for tensor in spec.outputs
    }
    results = {name: torch.empty(shape, device=network.device) for name, shape in shapes.items()}
    return {spec.inputs[0].name: network.image(task), **results}


def _plan(network: Network, stage: Stage, precision: Precision) -> bytes:
    """A plan from the cache of this machine, or compiled now."""
    from cascade_rt.engines.engine_cache import EngineCache, Machine
    from cascade_rt.engines.nvidia import require_gpu
    from cascade_rt_export.trt_build import cached_engine

    return cached_engine(
        EngineCache(),
        Machine.of_gpu(require_gpu("tensorrt")),
        network.graph(stage, precision),
        stage,
        network.config,
        flavour="tensorrt",
        precision=precision,
    ).plan
