"""Running plans."""

import json
import weakref
from typing import Any

import numpy as np

from ._behaviour import behaviour
from ._builder import describe_layers
from ._driver import HostFunction, allocate_a_little, device_array, driver, is_capturing
from ._flags import TensorIOMode
from ._plan import Plan, Shape

_ERROR = 1
_WORKSPACE = 65536
"""Bytes for each profile after the first, which needs none."""
_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
_CALLBACKS: list[Any] = []
"""Never freed: a recorded graph may call one whenever it is launched."""


class Runtime:
    def __init__(self, log: Any) -> None:
        self._log = log

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> "ICudaEngine | None":
        plan = Plan.of_bytes(bytes(serialized_engine))
        if plan is None:
            self._log.log(_ERROR, "version tag does not match")
            return None
        return ICudaEngine(plan, self._log)


class ICudaEngine:
    def __init__(self, plan: Plan, log: Any) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        self.session = onnxruntime.InferenceSession(plan.graph, options, providers=["CPUExecutionProvider"])
        self.log = log
        self.plan = plan
        self.inputs = {each.name: each for each in self.session.get_inputs()}
        self.outputs = {each.name: each for each in self.session.get_outputs()}
        self._tensors = self.inputs | self.outputs

    @property
    def num_io_tensors(self) -> int:
        return len(self._tensors)

    @property
    def num_optimization_profiles(self) -> int:
        return max(1, len(self.plan.profiles))

    def get_tensor_name(self, index: int) -> str:
        return list(self._tensors)[index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if name in self.inputs else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> type:
        return _TYPES[self._tensors[name].type]

    def get_tensor_shape(self, name: str) -> Shape:
        return tuple(length if isinstance(length, int) else -1 for length in self._tensors[name].shape)

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[Shape]:
        return list(self.plan.profiles[profile_index].shapes[name])

    def get_device_memory_size_for_profile_v2(self, profile_index: int) -> int:
        return _WORKSPACE * profile_index

    def create_engine_inspector(self) -> "EngineInspector":
        return EngineInspector(self.plan)

    def create_execution_context(self, strategy: Any) -> "IExecutionContext | None":
        if behaviour.has_no_memory:
            self.log.log(_ERROR, "Cuda Runtime (out of memory)")
            return None
        return IExecutionContext(self)


class EngineInspector:
    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def get_engine_information(self, format: Any) -> str:  # noqa: A002
        return json.dumps({"Layers": describe_layers(self._plan)})


class IExecutionContext:
    def __init__(self, engine: ICudaEngine) -> None:
        self._engine = engine
        self._profile: int | None = None
        self._workspace = 0, 0
        self._shapes: dict[str, Shape] = {}
        self._addresses: dict[str, int] = {}

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        self._profile = profile_index
        return not behaviour.refuses_profiles

    def set_device_memory(self, memory: int, size: int) -> None:
        self._workspace = memory, size

    def set_input_shape(self, name: str, shape: Shape) -> bool:
        self._shapes[name] = tuple(shape)
        if not self._engine.plan.profiles:
            return tuple(shape) == self._engine.get_tensor_shape(name)
        return self._profile is not None and self._engine.plan.profiles[self._profile].takes(name, tuple(shape))

    def get_tensor_shape(self, name: str) -> Shape:
        if name in self._shapes:
            return self._shapes[name]
        lengths = {
            axis: length
            for source, shape in self._shapes.items()
            for axis, length in zip(self._engine.inputs[source].shape, shape, strict=True)
        }
        return tuple(lengths.get(axis, axis) for axis in self._engine.outputs[name].shape)

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self._addresses[name] = memory
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        capturing = is_capturing(stream_handle)
        if behaviour.refuses_to_run or (behaviour.refuses_capture and capturing):
            self._engine.log.log(_ERROR, "no kernel for this\nand more")
            return False
        if behaviour.allocates_in_capture and capturing:
            allocate_a_little()
            return True
        behaviour.enqueued += not capturing
        _CALLBACKS.append(HostFunction(_Run(self)))
        return driver.cuLaunchHostFunc(stream_handle, _CALLBACKS[-1], None) == 0


class _Run:
    """A run as it was enqueued, to be computed when the stream comes to it."""

    def __init__(self, context: IExecutionContext) -> None:
        # Not the context itself: a graph that outlives it must be noticed.
        self._context = weakref.ref(context)
        self._profile = context._profile or 0
        self._workspace = context._workspace
        engine = context._engine
        self._tensors = {
            name: (address, context.get_tensor_shape(name), engine.get_tensor_dtype(name))
            for name, address in context._addresses.items()
        }

    def __call__(self, _: object) -> None:
        context = self._context()
        if context is None:
            driver.emulator_violation(b"a run of an execution context that no longer exists")
            return
        engine = context._engine
        arrays = {name: device_array(*tensor, f"tensor {name}") for name, tensor in self._tensors.items()}
        workspace = self._find_workspace(engine)
        if workspace is None or any(array is None for array in arrays.values()):
            return
        workspace[:] = 0xAB
        names = list(engine.outputs)
        outputs = engine.session.run(names, {name: arrays[name] for name in engine.inputs})
        for name, array in behaviour.spoil(dict(zip(names, outputs, strict=True))).items():
            np.copyto(arrays[name], array)
        behaviour.profiles_run.append(self._profile)

    def _find_workspace(self, engine: ICudaEngine) -> np.ndarray | None:
        address, size = self._workspace
        needed = engine.get_device_memory_size_for_profile_v2(self._profile)
        if size < needed:
            driver.emulator_violation(b"the workspace of an execution context is too small")
            return None
        return device_array(address, (needed,), np.uint8, "workspace") if needed else np.empty(0, np.uint8)
