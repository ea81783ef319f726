"""What the NVIDIA driver says becomes a GPU or one sentence."""

import ctypes
from collections.abc import Sequence

import pytest

from cascade_rt.engines import nvidia
from cascade_rt.engines.nvidia import (
    Gpu,
    check_alike,
    check_device,
    find_gpu,
    find_gpus,
    on_device,
    require_gpu,
)
from cascade_rt.errors import BackendUnavailableError, UsageError


class Driver:
    """The functions of libcuda and of NVML that are called, with GPUs behind them: names and multiprocessors."""

    def __init__(
        self,
        start: int = 0,
        cuda: int = 13010,
        capability: tuple[int, int] = (9, 0),
        gpus: Sequence[tuple[str, int]] = (("NVIDIA H200", 132),),
    ) -> None:
        self.start = start
        self.cuda = cuda
        self.capability = capability
        self.gpus = gpus
        self.contexts: list[int] = []

    def cuInit(self, _: int) -> int:  # noqa: N802  the driver's own name
        return self.start

    def cuGetErrorString(self, status: int, text) -> int:  # noqa: N802
        text._obj.value = b"no CUDA-capable device is detected"
        return 0

    def cuDeviceGetCount(self, count) -> int:  # noqa: N802
        count._obj.value = len(self.gpus)
        return 0

    def cuDeviceGet(self, device, index: int) -> int:  # noqa: N802
        device._obj.value = index
        return 0

    def cuDeviceGetName(self, name, _: int, device) -> int:  # noqa: N802
        name.value = self.gpus[device.value][0].encode()
        return 0

    def cuDeviceTotalMem_v2(self, memory, _) -> int:  # noqa: N802
        memory._obj.value = 150 << 30
        return 0

    def cuDeviceGetAttribute(self, value, number: int, device) -> int:  # noqa: N802
        value._obj.value = dict(zip((75, 76, 16), (*self.capability, self.gpus[device.value][1]), strict=True))[number]
        return 0

    def cuDevicePrimaryCtxRetain(self, context, device) -> int:  # noqa: N802
        context._obj.value = 1000 + device.value
        return 0

    def cuCtxPushCurrent_v2(self, context) -> int:  # noqa: N802
        self.contexts.append(context.value)
        return 0

    def cuCtxPopCurrent_v2(self, _) -> int:  # noqa: N802
        self.contexts.pop()
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
    assert find_gpu(lambda _: Driver()) == Gpu("NVIDIA H200", (9, 0), 150 << 30, "590.44.01", "13.1", 132)


def test_gpus_are_numbered_in_the_order_of_the_driver() -> None:
    gpus = find_gpus(lambda _: Driver(gpus=[("NVIDIA H200", 132), ("NVIDIA L4", 58)]))
    assert [str(gpu) for gpu in gpus] == ["NVIDIA H200 (GPU 0)", "NVIDIA L4 (GPU 1)"]


@pytest.fixture
def driver(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Driver:
    """The driver of this machine: one of two equal GPUs, or of those of the parameter."""
    driver = Driver(gpus=getattr(request, "param", [("NVIDIA H200", 132)] * 2))
    monkeypatch.setattr(ctypes, "CDLL", lambda _: driver)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return driver


TWO_MODELS = pytest.mark.parametrize("driver", [[("NVIDIA H200", 132), ("NVIDIA L4", 58)]], indirect=True)


@TWO_MODELS
@pytest.mark.usefixtures("driver")
@pytest.mark.parametrize("device", [2, -1])
def test_a_number_that_no_gpu_has_is_refused_with_those_there_are(device: int) -> None:
    listed = rf"there is no GPU {device} here; choose from 0 \(NVIDIA H200\) and 1 \(NVIDIA L4\)$"
    with pytest.raises(UsageError, match=listed):
        require_gpu("tensorrt", device)


@pytest.mark.usefixtures("driver")
def test_if_gpus_are_hidden_the_message_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    with pytest.raises(UsageError, match=r"1 \(NVIDIA H200\), which CUDA_VISIBLE_DEVICES leaves$"):
        find_gpu(device=4)


def test_a_driver_that_shows_no_gpu_is_one_sentence() -> None:
    with pytest.raises(BackendUnavailableError, match=r"^the NVIDIA driver reports none$"):
        find_gpus(lambda _: Driver(gpus=[]))


def test_without_a_gpu_only_the_default_number_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", no_library)
    check_device(0)
    with pytest.raises(BackendUnavailableError, match=r"^there is no GPU 1 here: this machine has no NVIDIA driver"):
        check_device(1)


@pytest.mark.usefixtures("driver")
def test_equal_gpus_are_alike() -> None:
    check_alike([0, 1])


@pytest.mark.parametrize(
    "driver",
    [
        pytest.param([("NVIDIA H200", 132), ("NVIDIA L4", 58)], id="two names"),
        pytest.param([("NVIDIA GeForce RTX 3080", 68), ("NVIDIA GeForce RTX 3080", 70)], id="one name"),
    ],
    indirect=True,
)
@pytest.mark.usefixtures("driver")
def test_gpus_of_different_models_are_not_alike() -> None:
    with pytest.raises(UsageError, match=r"\(GPU 0\), .* and NVIDIA .* \(GPU 1\), .* are different models"):
        check_alike([0, 1])


def test_a_gpu_is_current_inside_a_block_only(driver: Driver) -> None:
    nvidia._primary_context.cache_clear()
    with on_device(1):
        assert driver.contexts == [1001]
    assert driver.contexts == []
    nvidia._primary_context.cache_clear()


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
