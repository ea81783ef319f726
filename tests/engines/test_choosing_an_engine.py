"""`auto` takes the best engine that runs and says why not a better one."""

import pytest

from cascade_rt.bundles.bundle import Bundle, embedded_bundle_path, read_bundle
from cascade_rt.common.packages import backend_named, import_package
from cascade_rt.common.tensors import EnginePrecision, Stage
from cascade_rt.engines import BACKENDS, GPU_BACKENDS, Backend, BackendChoice, open_engines
from cascade_rt.engines.base import EngineInfo, StageEngine
from cascade_rt.engines.fake import FakeEngine
from cascade_rt.errors import (
    BackendUnavailableError,
    EngineBuildError,
    EngineError,
    EngineOutOfMemoryError,
    OutputError,
    UsageError,
)
from tests.hidden_packages import hide

NO_GPU = "tensorrt and onnxruntime-cuda need an NVIDIA GPU: this machine has no NVIDIA driver (no no_such_driver.so)"


@pytest.mark.usefixtures("no_gpu")
def test_without_a_gpu_auto_takes_openvino_and_says_why_in_one_sentence(bundle: Bundle) -> None:
    engines = open_engines(bundle)
    assert (engines.stage1.info.backend, engines.stage2.info.backend) == ("openvino", "openvino")
    assert engines.passed_over == (NO_GPU,)


@pytest.mark.usefixtures("no_gpu")
def test_auto_falls_to_pytorch_and_says_why(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, "openvino", "onnxruntime")
    engines = open_engines(bundle)
    assert engines.stage1.info.backend == "pytorch"
    assert engines.passed_over == (
        NO_GPU,
        "backend 'openvino' needs a package that is not installed (openvino); run: pip install 'openvino>=2025.2'",
        "backend 'onnxruntime' needs a package that is not installed (onnxruntime); "
        "run: pip install 'onnxruntime>=1.27'",
    )


@pytest.mark.usefixtures("a_gpu")
def test_with_a_gpu_auto_names_what_each_gpu_backend_lacks(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, "tensorrt", "openvino", "onnxruntime")
    backends = [
        reason.partition(" needs a package that is not installed")[0] for reason in open_engines(bundle).passed_over
    ]
    assert backends == [
        "backend 'tensorrt'",
        "backend 'onnxruntime-cuda'",
        "backend 'openvino'",
        "backend 'onnxruntime'",
    ]


@pytest.mark.usefixtures("an_old_driver")
def test_with_an_old_driver_auto_says_so_once_and_blames_no_package(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    hide(monkeypatch, "tensorrt", "pycuda")
    assert open_engines(bundle).passed_over == (
        "tensorrt and onnxruntime-cuda cannot run here: the NVIDIA driver 550.54.14 runs CUDA up to 12.4, "
        "and the packages for GPUs need CUDA 13; install driver 580 or later",
    )


@pytest.mark.usefixtures("a_gpu")
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_backend_asked_for_is_never_replaced(
    bundle: Bundle, backend: BackendChoice, monkeypatch: pytest.MonkeyPatch
) -> None:
    hide(monkeypatch, "openvino", "onnxruntime", "torch", "tensorrt")
    with pytest.raises(BackendUnavailableError, match=f"backend '{backend}' needs a package that is not installed"):
        open_engines(bundle, backend)


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize("backend", GPU_BACKENDS)
def test_a_backend_that_needs_a_gpu_says_so_before_it_asks_for_packages(
    bundle: Bundle, backend: BackendChoice, monkeypatch: pytest.MonkeyPatch
) -> None:
    hide(monkeypatch, "onnxruntime", "tensorrt", "pycuda")
    with pytest.raises(
        BackendUnavailableError, match=f"backend '{backend}' needs an NVIDIA GPU, but this machine has no"
    ):
        open_engines(bundle, backend)


@pytest.mark.usefixtures("a_gpu")
@pytest.mark.parametrize(
    "kind", [BackendUnavailableError, EngineOutOfMemoryError, EngineBuildError, OutputError, MemoryError]
)
def test_a_backend_that_cannot_be_built_is_passed_over(kind: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = read_bundle(embedded_bundle_path("phantom"))
    golden = bundle.read_golden()

    def open_fake(_: Bundle, stage: Stage, backend: Backend, *__: object) -> StageEngine:
        if backend in GPU_BACKENDS:
            raise kind("the engine cannot be built")
        return FakeEngine(stage, lambda _: dict(golden[stage].outputs))

    monkeypatch.setattr("cascade_rt.engines.open_engine", open_fake)
    engines = open_engines(bundle)
    assert len(engines.passed_over) == len(GPU_BACKENDS)
    assert engines.stage1.info.backend == "fake"


def test_an_engine_that_computes_wrongly_is_never_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = read_bundle(embedded_bundle_path("phantom"))
    golden = bundle.read_golden()

    def open_wrong(_: Bundle, stage: Stage, *__: object) -> StageEngine:
        return FakeEngine(stage, lambda _: {name: 1 - array for name, array in golden[stage].outputs.items()})

    monkeypatch.setattr("cascade_rt.engines.open_engine", open_wrong)
    with pytest.raises(EngineError, match="does not reproduce the exported model"):
        open_engines(bundle)


@pytest.mark.usefixtures("a_gpu")
def test_a_gpu_backend_that_opens_but_does_not_run_is_passed_over(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> dict[str, object]:
        raise BackendUnavailableError("the GPU's memory is full")

    golden = bundle.read_golden()

    def open_fake(_: Bundle, stage: Stage, backend: Backend, *__: object) -> StageEngine:
        return FakeEngine(stage, fail if backend in GPU_BACKENDS else lambda _: dict(golden[stage].outputs))

    monkeypatch.setattr("cascade_rt.engines.open_engine", open_fake)
    engines = open_engines(bundle)
    assert engines.passed_over == ("the GPU's memory is full", "the GPU's memory is full")
    assert engines.stage1.info == EngineInfo("fake", "fp32", "cpu", "1")


@pytest.mark.usefixtures("a_gpu")
def test_a_library_that_refuses_to_run_is_passed_over_with_its_reason(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> dict[str, object]:
        raise EngineError("TensorRT cannot run (no kernel for this)")

    golden = bundle.read_golden()

    def open_fake(_: Bundle, stage: Stage, backend: Backend, *__: object) -> StageEngine:
        return FakeEngine(stage, refuse if backend in GPU_BACKENDS else lambda _: dict(golden[stage].outputs))

    monkeypatch.setattr("cascade_rt.engines.open_engine", open_fake)
    engines = open_engines(bundle)
    assert engines.passed_over == ("TensorRT cannot run (no kernel for this)",) * 2


@pytest.mark.usefixtures("equal_gpus")
def test_both_stages_are_opened_on_the_gpu_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = read_bundle(embedded_bundle_path("phantom"))
    golden, devices = bundle.read_golden(), []

    def open_fake(_: Bundle, stage: Stage, *others: object) -> StageEngine:
        devices.append(others[-1])
        return FakeEngine(stage, lambda _: dict(golden[stage].outputs))

    monkeypatch.setattr("cascade_rt.engines.open_engine", open_fake)
    open_engines(bundle, device=2)
    assert devices == [2, 2]


@pytest.mark.usefixtures("no_gpu")
def test_without_a_gpu_auto_refuses_one_that_was_asked_for_by_number() -> None:
    bundle = read_bundle(embedded_bundle_path("phantom"))
    with pytest.raises(BackendUnavailableError, match="there is no GPU 1 here: this machine has no NVIDIA driver"):
        open_engines(bundle, device=1)


@pytest.mark.usefixtures("no_gpu")
def test_a_backend_of_the_cpu_ignores_the_number_of_a_gpu() -> None:
    bundle = read_bundle(embedded_bundle_path("phantom"))
    with open_engines(bundle, "onnxruntime", device=1) as engines:
        assert engines.stage1.info.device == "cpu"


@pytest.mark.usefixtures("no_gpu")
def test_without_any_backend_all_reasons_are_given(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, "openvino", "onnxruntime", "torch")
    with pytest.raises(BackendUnavailableError, match=r"no engine can run here: .*openvino.*onnxruntime.*torch"):
        open_engines(bundle)


def test_a_package_whose_shared_library_does_not_load_is_one_sentence(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path_factory.mktemp("packages")
    (folder / "unloadable_engine.py").write_text("import ctypes\nctypes.CDLL('libnobody_has.so.1')\n")
    monkeypatch.syspath_prepend(str(folder))
    with pytest.raises(BackendUnavailableError, match=r"cannot load unloadable_engine, .*libnobody_has.*; run: pip"):
        import_package("unloadable_engine", needed_by=backend_named("broken"), extra="cpu")


def test_a_broken_package_keeps_its_own_error(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path_factory.mktemp("packages")
    (folder / "broken_engine.py").write_text("import a_package_nobody_has\n")
    monkeypatch.syspath_prepend(str(folder))
    with pytest.raises(ModuleNotFoundError, match="a_package_nobody_has"):
        import_package("broken_engine", needed_by=backend_named("broken"), extra="broken")


def test_half_precision_is_used_if_requested(bundle: Bundle) -> None:
    engines = open_engines(bundle, "onnxruntime", "fp16")
    assert (engines.stage1.info.precision, engines.stage2.info.precision) == ("fp16", "fp16")


@pytest.mark.usefixtures("no_gpu")
def test_auto_passes_over_a_backend_without_the_precision_asked_for(bundle: Bundle) -> None:
    engines = open_engines(bundle, "auto", "fp16")
    assert (engines.stage1.info.backend, engines.stage1.info.precision) == ("onnxruntime", "fp16")
    assert engines.passed_over == (NO_GPU, "backend 'openvino' computes in fp32 and bf16, not in fp16")


@pytest.mark.parametrize(
    ("backend", "precision", "precisions"),
    [
        ("pytorch", "fp16", "fp32"),
        ("pytorch", "bf16", "fp32"),
        ("onnxruntime", "bf16", "fp32 and fp16"),
        ("tensorrt", "bf16", "fp32 and fp16"),
        ("openvino", "fp16", "fp32 and bf16"),
    ],
)
def test_a_precision_that_a_backend_does_not_compute_in_is_refused(
    bundle: Bundle, backend: Backend, precision: EnginePrecision, precisions: str
) -> None:
    with pytest.raises(UsageError, match=f"backend '{backend}' computes in {precisions}, not in {precision}; choose"):
        open_engines(bundle, backend, precision)
