"""How tests get the emulated driver. A test that uses `emulator` is marked `gpu`, so that `make emulated` runs it."""

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cuda_emulator.driver import Emulator, is_emulated


@pytest.fixture(scope="session")
def violations(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The file to which the drivers of this process and of its children write what a real GPU would not forgive."""
    path = tmp_path_factory.mktemp("driver") / "violations"
    path.touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDA_EMULATOR_VIOLATIONS", str(path))
        yield path


@pytest.fixture(autouse=True)
def no_violation(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that does what a real GPU would not forgive."""
    if request.node.get_closest_marker("gpu") is None or not is_emulated():
        yield
        return
    path = request.getfixturevalue("violations")
    before = len(path.read_text().splitlines())
    yield
    found = path.read_text().splitlines()[before:]
    if found:
        pytest.fail("on the emulated GPU:\n" + "\n".join(found), pytrace=False)


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    """The emulated driver. What is set for a test, also in the stand-in of TensorRT, does not last beyond it."""
    if not is_emulated():
        pytest.skip("needs the emulated driver, and this machine has a real one")
    import tensorrt

    gc.collect()  # or what other tests left would be freed during this one
    driver = Emulator()
    limits = [driver.counters(device).memory_limit for device in range(driver.devices)]
    tensorrt.behaviour.reset()
    yield driver
    tensorrt.behaviour.reset()
    for device, limit in enumerate(limits):
        driver.limit_memory(limit, device)
