"""The installed ONNX Runtime, in which the providers for NVIDIA GPUs start and compute on the CPU.

What they compute is right, so that code around them can be tested; what is theirs (placement, memory, speed) is not.
"""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

_INSTALLED = next(path for path in (Path(each) / "onnxruntime" for each in sys.path) if (path / "capi").is_dir())
__path__ = [str(_INSTALLED)]
__file__ = str(_INSTALLED / "__init__.py")
exec(compile(Path(__file__).read_bytes(), __file__, "exec"))  # this module becomes the installed one

from onnxruntime.capi import onnxruntime_inference_collection as _installed  # noqa: E402

_GPU_PROVIDERS = ("TensorrtExecutionProvider", "CUDAExecutionProvider")


def get_available_providers() -> list[str]:
    return [*_GPU_PROVIDERS, *_installed.C.get_available_providers()]


def preload_dlls(*_: object, **__: object) -> None:
    """There are no CUDA libraries to load."""


def _host(device: str) -> str:
    return "cpu" if device == "cuda" else device


class OrtValue(_installed.OrtValue):
    @classmethod
    def ortvalue_from_numpy(cls, array: Any, device_type: str = "cpu", device_id: int = 0, *rest: Any) -> Any:
        return super().ortvalue_from_numpy(array, _host(device_type), device_id, *rest)

    @classmethod
    def ortvalue_from_shape_and_type(
        cls, shape: Any, element_type: Any, device_type: str = "cpu", device_id: int = 0, *rest: Any
    ) -> Any:
        return super().ortvalue_from_shape_and_type(shape, element_type, _host(device_type), device_id, *rest)


class IOBinding(_installed.IOBinding):
    def bind_input(self, name: str, device_type: str, device_id: int, *rest: Any, **named: Any) -> None:
        super().bind_input(name, _host(device_type), 0, *rest, **named)

    def bind_output(self, name: str, device_type: str = "cpu", device_id: int = 0, *rest: Any, **named: Any) -> None:
        super().bind_output(name, _host(device_type), 0, *rest, **named)


class InferenceSession(_installed.InferenceSession):
    def __init__(self, graph: Any, sess_options: Any = None, providers: Any = None, **named: Any) -> None:
        names = [each if isinstance(each, str) else each[0] for each in providers or ()]
        self._claimed = [name for name in names if name in _GPU_PROVIDERS]
        super().__init__(graph, sess_options, ["CPUExecutionProvider"] if self._claimed else providers, **named)

    def get_providers(self) -> list[str]:
        return [*self._claimed, *super().get_providers()]

    def get_provider_graph_assignment_info(self) -> list[Any]:
        parts = super().get_provider_graph_assignment_info()
        if not self._claimed:
            return parts
        return [SimpleNamespace(ep_name=self._claimed[0], get_nodes=part.get_nodes) for part in parts]

    def io_binding(self) -> IOBinding:
        return IOBinding(self)
