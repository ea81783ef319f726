"""GPU and driver are what the driver says, and without one there is a sentence."""

import ctypes
from typing import Any

import pytest

from cascade_rt.engines.engine_cache import Machine
from cascade_rt.engines.nvidia_gpu import this_machine
from cascade_rt.errors import BackendUnavailableError


class Driver:
    """Both libraries of a driver with one GPU."""

    def __init__(self, _name: str) -> None:
        pass

    def cuInit(self, _flags: int) -> int:  # noqa: N802
        return 0

    def cuDeviceGet(self, _device: Any, index: int) -> int:  # noqa: N802
        return 0 if index == 0 else 101

    def cuDeviceGetName(self, name: Any, _length: int, _device: Any) -> int:  # noqa: N802
        name.value = b"NVIDIA H200"
        return 0

    def cuDeviceGetAttribute(self, value: Any, number: int, _device: Any) -> int:  # noqa: N802
        value._obj.value = {75: 9, 76: 0}[number]
        return 0

    def nvmlInit_v2(self) -> int:  # noqa: N802
        return 0

    def nvmlSystemGetDriverVersion(self, version: Any, _length: int) -> int:  # noqa: N802
        version.value = b"610.10"
        return 0

    def nvmlShutdown(self) -> int:  # noqa: N802
        return 0


def test_the_machine_is_what_the_driver_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", Driver)
    assert this_machine() == Machine("NVIDIA H200", "9.0", "610.10")


def test_a_gpu_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", Driver)
    with pytest.raises(BackendUnavailableError, match=r"there is no GPU 1 \(error 101\)"):
        this_machine(1)


def test_a_machine_without_a_driver_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    with pytest.raises(BackendUnavailableError, match="there is no NVIDIA driver on this machine"):
        this_machine()
