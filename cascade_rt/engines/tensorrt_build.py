"""A minimal builder of TensorRT plans from ONNX graphs: float32, without tuning or caching.

Used by the doctor and the tests, which check whether TensorRT works at all. TensorRT-RTX has the same interface.
"""

from collections.abc import Callable, Mapping
from typing import Any

from cascade_rt.engines.tensorrt_api import tensorrt_log
from cascade_rt.engines.tensorrt_session import Shape
from cascade_rt.errors import BackendUnavailableError

Profile = Mapping[str, tuple[Shape, Shape, Shape]]
"""The smallest, usual and largest shape of each input with a dynamic shape."""


def build_plan(
    tensorrt: Any, graph: bytes, profile: Profile | None = None, configure: Callable[[Any], None] = lambda _: None
) -> bytes:
    """Build a plan and return it serialized.

    Args:
        tensorrt: The package `tensorrt`, or `tensorrt_rtx`.
        graph: The ONNX graph.
        profile: Shapes of the inputs that are dynamic in the graph.
        configure: Called with the builder's config before building.

    Raises:
        BackendUnavailableError: The library rejects the graph or cannot build the engine. The message includes the last
            error from its log.
    """
    log = tensorrt_log(tensorrt.__name__)
    log.clear()
    builder = tensorrt.Builder(log.logger)
    network = builder.create_network(0)
    parser = tensorrt.OnnxParser(network, log.logger)
    if not parser.parse(graph):
        raise BackendUnavailableError(f"{tensorrt.__name__} cannot read the graph ({log.last_error})")
    config = builder.create_builder_config()
    config.clear_flag(tensorrt.BuilderFlag.TF32)
    if profile:
        shapes = builder.create_optimization_profile()
        for name, (smallest, usual, largest) in profile.items():
            shapes.set_shape(name, smallest, usual, largest)
        config.add_optimization_profile(shapes)
    configure(config)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise BackendUnavailableError(f"{tensorrt.__name__} cannot build an engine ({log.last_error})")
    return bytes(plan)
