"""What several tests share: a small trained-looking model, and the bundle it exports to."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import settings

from cascade_rt.bundles.bundle import read_bundle
from cascade_rt.engines.nvidia import Gpu, find_gpu
from cascade_rt.errors import BackendUnavailableError
from tests.cuda_emulator.fixtures import emulator, no_violation, violations

__all__ = ["emulator", "no_violation", "violations"]

# A busy machine must not fail a test: what takes long is measured in benchmarks.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


SAMPLE_CT = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_configure() -> None:
    """Keep each worker of pytest-xdist to a processor of its own.

    Libraries open as many threads as they find processors; those of several workers would wait for one another.
    """
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker and hasattr(os, "sched_setaffinity"):
        processors = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {processors[int(worker.removeprefix("gw")) % len(processors)]})


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the file that takes longest: it needs no shared bundle, which another worker can export meanwhile."""
    items.sort(key=lambda item: item.path.parts[-2:] != ("cli", "test_variants.py"))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip tests marked `gpu` where there is none, with the reason."""
    if item.get_closest_marker("gpu"):
        try:
            find_gpu()
        except BackendUnavailableError as error:
            pytest.skip(f"needs an NVIDIA GPU: {error}")


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without an NVIDIA driver, whatever this one has."""
    monkeypatch.setattr("cascade_rt.engines.nvidia._DRIVER", "no_such_driver.so")


@pytest.fixture
def a_gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    """A machine whose driver shows a GPU, whatever this one has."""
    return _show_gpus(monkeypatch, Gpu("NVIDIA Test", (9, 0), 1 << 30, "590.44.01", "13.1"))[0]


@pytest.fixture
def equal_gpus(monkeypatch: pytest.MonkeyPatch) -> tuple[Gpu, ...]:
    """A machine whose driver shows four GPUs of one model, whatever this one has."""
    gpu = Gpu("NVIDIA Test", (9, 0), 1 << 30, "590.44.01", "13.1", multiprocessors=132)
    return _show_gpus(monkeypatch, *(replace(gpu, index=index) for index in range(4)))


@pytest.fixture
def an_old_driver(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    """A machine with a GPU whose driver is older than the packages need, whatever this one has."""
    return _show_gpus(monkeypatch, Gpu("NVIDIA Test", (9, 0), 1 << 30, "550.54.14", "12.4"))[0]


def _show_gpus(monkeypatch: pytest.MonkeyPatch, *gpus: Gpu) -> tuple[Gpu, ...]:
    for module in ("cascade_rt.engines.nvidia", "cascade_rt.engines.doctor"):
        monkeypatch.setattr(f"{module}.find_gpus", lambda _=None: gpus)
    return gpus


@pytest.fixture(scope="session")
def sample_ct() -> Path:
    """Folder of real CT files."""
    if not SAMPLE_CT.is_dir():
        pytest.skip(f"needs the sample CT files in {SAMPLE_CT.name}/ beside the checkout")
    return SAMPLE_CT


@pytest.fixture(scope="session")
def checkpoint():
    """A cascade of base width 8 with seeded random weights, lively enough to find something in noise."""
    import torch

    from cascade_rt.config import CascadeConfig, TrainConfig
    from cascade_rt.models.cascade_model import CascadeModel
    from cascade_rt.training.checkpoint import Checkpoint

    config = CascadeConfig(base_width=8)
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = CascadeModel(config)
        torch.nn.init.normal_(model.saliency.conv5.weight, std=0.1)
        model.train()
        with torch.no_grad():
            organ = model.find_organ(torch.randn(4, 1, 128, 128) * 200)
            model.stage2(organ.image)
    return Checkpoint(config, TrainConfig(), "random weights", epochs_done=0, model=model.state_dict(), optimizer={})


@pytest.fixture(scope="session")
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    """The bundle of `checkpoint` in both precisions, exported and checked once for all tests and all workers."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    path = folder / "exported" / "bundle"
    with FileLock(folder / "exported.lock"):
        if path.exists():
            return read_bundle(path)
        from cascade_rt_export.bundle_export import export_bundle
        from tests.parity_limits import RANDOM_WEIGHTS, small_calibration

        checkpoint = request.getfixturevalue("checkpoint")
        return export_bundle(checkpoint, path, calibration=small_calibration(), limits=RANDOM_WEIGHTS)
