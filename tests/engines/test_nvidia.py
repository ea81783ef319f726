"""What the NVIDIA driver says becomes a GPU or one sentence."""

import ctypes

import pytest

from cascade_rt.engines.nvidia import Gpu, find_gpu, require_gpu
from cascade_rt.errors import BackendUnavailableError


class Driver:
    """The functions of libcuda and of NVML that are called, with an H200 behind them."""

    def __init__(self, start: int = 0, cuda: int = 13010, capability: tuple[int, int] = (9, 0)) -> None:
        self.start = start
        self.cuda = cuda
        self.capability = capability

    def cuInit(self, _: int) -> int:  # noqa: N802  the driver's own name
        return self.start

    def cuGetErrorString(self, status: int, text) -> int:  # noqa: N802
        text._obj.value = b"no CUDA-capable device is detected"
        return 0

    def cuDeviceGet(self, device, _: int) -> int:  # noqa: N802
        device._obj.value = 0
        return 0

    def cuDeviceGetName(self, name, _: int, __) -> int:  # noqa: N802
        name.value = b"NVIDIA H200"
        return 0

    def cuDeviceTotalMem_v2(self, memory, _) -> int:  # noqa: N802
        memory._obj.value = 150 << 30
        return 0

    def cuDeviceGetAttribute(self, value, number: int, _) -> int:  # noqa: N802
        value._obj.value = dict(zip((75, 76), self.capability, strict=True))[number]
        return 0

    def cuDriverGetVersion(self, version) -> int:  # noqa: N802
        version._obj.value = self.cuda
        return 0

    def nvmlInit_v2(self) -> int:  # noqa: N802
        return 0

    def nvmlSystemGetDriverVersion(self, version, _: int) -> int:  # noqa: N802
        version.value = b"590.44.01"
        return 0


def no_library(name: str) -> object:
    raise OSError(f"{name}: cannot open shared object file")


def test_a_gpu_is_what_its_driver_says() -> None:
    assert find_gpu(lambda _: Driver()) == Gpu("NVIDIA H200", (9, 0), 150 << 30, "590.44.01", "13.1")


def test_without_the_management_library_only_the_version_is_unknown() -> None:
    gpu = find_gpu(lambda name: Driver() if "cuda" in name else no_library(name))
    assert (gpu.name, gpu.driver) == ("NVIDIA H200", "")


def test_no_driver_is_one_sentence() -> None:
    with pytest.raises(BackendUnavailableError, match=r"^this machine has no NVIDIA driver "):
        find_gpu(no_library)


def test_a_driver_without_a_gpu_is_one_sentence_with_its_reason() -> None:
    with pytest.raises(BackendUnavailableError, match=r"cuInit: CUDA error 100, no CUDA-capable device is detected"):
        find_gpu(lambda _: Driver(start=100))


def test_the_backend_that_needs_a_gpu_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", no_library)
    with pytest.raises(
        BackendUnavailableError, match=r"backend 'tensorrt' needs an NVIDIA GPU, but .*; choose another"
    ):
        require_gpu("tensorrt")


@pytest.mark.parametrize(
    ("driver", "advice"),
    [
        (
            Driver(cuda=12090),
            "the NVIDIA driver 590.44.01 runs CUDA up to 12.9, and the packages for GPUs need CUDA 13; "
            "install driver 580 or later, or choose another `backend`, or auto",
        ),
        (
            Driver(capability=(7, 0)),
            "NVIDIA H200 has compute capability 7.0, and CUDA 13 needs 7.5 (Turing) or later; "
            "use another GPU, or choose another `backend`, or auto",
        ),
    ],
    ids=["driver", "GPU"],
)
def test_what_is_too_old_for_the_packages_is_named(
    driver: Driver, advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: driver)
    with pytest.raises(BackendUnavailableError) as refusal:
        require_gpu("tensorrt")
    assert str(refusal.value) == f"backend 'tensorrt' cannot run: {advice}"


@pytest.mark.parametrize("driver", [Driver(cuda=13000), Driver(capability=(7, 5)), Driver(capability=(12, 0))])
def test_the_oldest_and_the_newest_that_the_packages_run_on_are_taken(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: driver)
    assert require_gpu("tensorrt").name == "NVIDIA H200"


@pytest.mark.gpu
def test_the_gpu_of_this_machine_has_a_name_and_a_driver() -> None:
    gpu = find_gpu()
    assert gpu.name.startswith("NVIDIA")
    assert gpu.driver
