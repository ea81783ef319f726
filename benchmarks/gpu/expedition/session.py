"""Our own code around TensorRT on a real GPU, with a stand-in for TensorRT: sessions, the bridge, graphs, memory.

PyTorch computes on the same GPU meanwhile, in the context that all share, and has to go on when our sessions are
closed.
"""

import gc
import sys
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.gpu.deadline import Deadline
from benchmarks.gpu.expedition.parts import Write
from benchmarks.gpu.expedition.raw_driver import RawDriver
from benchmarks.gpu.expedition.settings import Settings
from benchmarks.gpu.expedition.stand_in import (
    Computer,
    Counts,
    CupyComputer,
    EmulatedComputer,
    StandInPlan,
    on_host,
    stand_in_tensorrt,
)
from benchmarks.gpu.lines import reason_of
from cascade_rt.common.tensors import GPU_BATCH, STAGES, Stage
from cascade_rt.config import CascadeConfig
from cascade_rt.data.phantom import make_phantom
from cascade_rt.engines import Engines
from cascade_rt.engines.fake import FakeEngine
from cascade_rt.engines.nvidia import require_gpu
from cascade_rt.engines.plans import Plan
from cascade_rt.engines.shape_profiles import shape_profiles
from cascade_rt.errors import BackendUnavailableError, EngineError
from cascade_rt.run.scan_run import ScanRun, segment_voxels

Voxels = npt.NDArray[np.int16]
CONFIG = CascadeConfig()
THREADS = 3
SESSIONS = 5
"""Opened and closed one after another, to see whether memory comes back."""
SEED = 10_001


@dataclass(frozen=True, slots=True)
class Site:
    """Where the checks run."""

    voxels: Voxels
    """A scan `[z, row, col]`."""
    counts: Counts
    torch: ModuleType | None
    """PyTorch, if it has the GPU too."""


Check = Callable[[Site], dict[str, Any]]


def run(settings: Settings, write: Write, deadline: Deadline) -> None:  # noqa: ARG001  it is killed then
    """Do all checks; one that fails is a line with the reason.

    Raises:
        BackendUnavailableError: There is no driver or no GPU, or CuPy is not installed.
    """
    require_gpu("tensorrt")
    counts = Counts()
    sys.modules["tensorrt"] = stand_in_tensorrt(_computer(settings), counts)
    slices, rows, cols = settings.scan_shape
    voxels = np.ascontiguousarray(make_phantom(SEED, (slices, rows, cols)).hu)
    site = Site(voxels, counts, _live_torch())
    for name, check in CHECKS.items():
        write("session", {"name": name, "passed": None, "reason": None, **_checked(check, site)})


def _computer(settings: Settings) -> Computer:
    if settings.emulated:
        return EmulatedComputer()
    try:
        return CupyComputer()
    except ImportError as error:
        raise BackendUnavailableError(
            f"the stand-in for TensorRT needs CuPy ({error}); run: pip install cupy-cuda13x"
        ) from None


def _live_torch() -> ModuleType | None:
    """PyTorch with a context on the GPU and something in its memory, if there is one."""
    try:
        import torch
    except ImportError:
        return None
    return torch if torch.cuda.is_available() and torch.ones(8, device="cuda").sum().item() == 8 else None


def _checked(check: Check, site: Site) -> dict[str, Any]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            found = check(site)
        except Exception as error:  # noqa: BLE001  whatever pycuda or the driver answers is a result
            found = {"passed": False, "reason": reason_of(error)}
        gc.collect()
    return {**found, "warnings": sorted({str(each.message) for each in caught})}


def stand_in_engines(*, poisoned: bool = False) -> Engines:
    """Both stages on the real session, with engines of the stand-in."""
    from cascade_rt.engines.tensorrt_engine import TensorRtEngine

    gpu = require_gpu("tensorrt")

    def opened(stage: Stage) -> TensorRtEngine:
        profiles = [(each.smallest, each.usual, each.largest) for each in shape_profiles(stage, CONFIG)]
        plan = StandInPlan(stage, profiles, poisoned=poisoned and stage == "stage1")
        return TensorRtEngine(Plan(plan.to_bytes(), "fp32"), stage, gpu)

    return Engines(*(opened(stage) for stage in STAGES))


def host_engines() -> Engines:
    """The same arithmetic with numpy."""
    return Engines(*(FakeEngine(stage, partial(on_host, stage)) for stage in STAGES))


def _segment(engines: Engines, voxels: Voxels, *, keep_probabilities: bool = False) -> ScanRun:
    return segment_voxels(engines, CONFIG, voxels, None, keep_probabilities=keep_probabilities)


def _compare(voxels: Voxels) -> dict[str, Any]:
    """Segment on the GPU and with numpy."""
    with stand_in_engines() as engines, host_engines() as reference:
        found, expected = _segment(engines, voxels).mask, _segment(reference, voxels).mask
    different = int((found != expected).sum())
    seen = {"shape": list(voxels.shape), "different": different, "organ": int((expected > 0).sum())}
    return {**seen, "tumor": int((expected > 1).sum()), "passed": not different}


def check_parity(site: Site) -> dict[str, Any]:
    """Masks of slices of usual size."""
    return _compare(site.voxels)


def check_padding(site: Site) -> dict[str, Any]:
    """Masks of slices whose sides have to be padded, so that maxima are computed again on the host."""
    rows, cols = site.voxels.shape[1] * 3 // 5, site.voxels.shape[2] * 5 // 6
    return _compare(np.ascontiguousarray(site.voxels[:, :rows, :cols]))


def check_large_slices(site: Site) -> dict[str, Any]:
    """Masks of slices beyond the usual profile, one at a time."""
    least = -(-640 // site.voxels.shape[1])
    return _compare(np.ascontiguousarray(site.voxels[:2].repeat(least, axis=1).repeat(least, axis=2)))


def check_probabilities(site: Site) -> dict[str, Any]:
    """Probabilities, which come back to the host."""
    voxels = site.voxels[: 2 * GPU_BATCH["stage1"]]
    with stand_in_engines() as engines, host_engines() as reference:
        found, expected = (_segment(each, voxels, keep_probabilities=True) for each in (engines, reference))
    errors = {
        name: float(np.abs(getattr(found, name) - getattr(expected, name)).max())
        for name in ("organ_prob", "tumor_prob")
    }
    return {"max_error": errors, "passed": not any(errors.values())}


def check_graphs(site: Site) -> dict[str, Any]:
    """The same shape many times: run once, recorded once, and replayed from then on."""
    runs = 10
    batch = np.ascontiguousarray(site.voxels[: GPU_BATCH["stage1"], None]).astype(np.float32)
    with stand_in_engines() as engines:
        records = engines.stage1.session.records_graphs  # type: ignore[attr-defined]
        before, different, seconds = site.counts.executions, 0, []
        for number in range(runs):
            image = np.roll(batch, number, axis=2)
            found = engines.stage1.run({"hu": image})
            expected = on_host("stage1", {"hu": image})
            different += sum(int((found[name] != expected[name]).sum()) for name in expected)
            seconds.append(engines.stage1.device_seconds)  # type: ignore[attr-defined]
        executions = site.counts.executions - before
    seen = {"records": records, "runs": runs, "executions": executions, "different": different}
    return {**seen, "first_s": seconds[0], "replayed_s": min(seconds[2:]), "passed": executions == 2 and not different}


def check_nan(site: Site) -> dict[str, Any]:
    """A stage that returns NaN is an error that names it."""
    with stand_in_engines(poisoned=True) as engines:
        try:
            _segment(engines, site.voxels[:4])
        except EngineError as error:
            return {"error": str(error), "code": error.code, "passed": True}
    return {"passed": False, "reason": "NaN went unnoticed"}


def check_threads(site: Site) -> dict[str, Any]:
    """Scans in threads that take turns on engines opened in another thread."""
    with host_engines() as reference:
        expected = _segment(reference, site.voxels).mask
    different: list[int] = []
    errors: list[str] = []

    def work(engines: Engines) -> None:
        try:
            different.append(int((_segment(engines, site.voxels).mask != expected).sum()))
        except Exception as error:  # noqa: BLE001  it would be lost with the thread
            errors.append(reason_of(error))

    with stand_in_engines() as engines:
        threads = [threading.Thread(target=work, args=(engines,)) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    passed = different == [0] * THREADS
    return {"different": different, "passed": passed, "reason": "; ".join(errors) or None}


def check_leaks(site: Site) -> dict[str, Any]:
    """Open, run and close, again and again: memory of the GPU that does not come back."""
    driver, voxels = RawDriver(), site.voxels[:4]
    free: list[int] = []
    with driver.primary_context():
        for _ in range(SESSIONS):
            with stand_in_engines() as engines:
                _segment(engines, voxels)
            del engines
            gc.collect()
            free.append(int(driver("cuMemGetInfo")[0]))
    # The first opens what stays for the life of the process, such as modules of CuPy.
    lost = free[1] - free[-1]
    return {"free_bytes": free, "lost_bytes": lost, "passed": lost <= 0}


def check_contexts(_: Site) -> dict[str, Any]:
    """What closed sessions leave: contexts on the thread's stack, and the primary context retained."""
    driver = RawDriver()
    left_before = _depth(driver)
    with stand_in_engines():
        pass
    gc.collect()
    left = _depth(driver)
    active = driver("cuDevicePrimaryCtxGetState", driver.device)[1]
    return {"left_on_stack": left - left_before, "primary_active": bool(active), "passed": left == left_before}


def _depth(driver: RawDriver) -> int:
    """How many contexts are on the thread's stack, which is taken apart for that and put together again."""
    popped = []
    while int(driver("cuCtxGetCurrent")):
        popped.append(driver("cuCtxPopCurrent"))
    for context in reversed(popped):
        driver("cuCtxPushCurrent", context)
    return len(popped)


def see_rates(site: Site) -> dict[str, Any]:
    """Bytes a second over the bus of a whole run, copies and arithmetic, in the buffers of a session."""
    batch = np.ascontiguousarray(site.voxels[: GPU_BATCH["stage1"], None]).astype(np.float32)
    with stand_in_engines() as engines:
        seconds, size = [], batch.nbytes
        for _ in range(12):
            outputs = engines.stage1.run({"hu": batch})
            seconds.append(engines.stage1.device_seconds)  # type: ignore[attr-defined]
    size += sum(array.nbytes for array in outputs.values())
    return {"bytes": size, "device_s": min(seconds), "bytes_per_s": size / max(min(seconds), 1e-9)}


def check_torch(site: Site) -> dict[str, Any]:
    """PyTorch still computes after all sessions were closed."""
    if site.torch is None:
        return {"reason": "PyTorch does not have this GPU"}
    torch: Any = site.torch
    matrix = torch.eye(512, device="cuda")
    right = bool((matrix @ matrix == matrix).all().item())
    return {"passed": right and torch.ones(8, device="cuda").sum().item() == 8}


CHECKS: dict[str, Check] = {
    "parity": check_parity,
    "graphs": check_graphs,
    "probabilities": check_probabilities,
    "padding": check_padding,
    "large_slices": check_large_slices,
    "nan": check_nan,
    "threads": check_threads,
    "leaks": check_leaks,
    "contexts": check_contexts,
    "rates": see_rates,
    "torch": check_torch,
}
