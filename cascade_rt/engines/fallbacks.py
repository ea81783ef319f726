"""Fallbacks for when memory runs out: smaller batches, then the next backend. The report records the level.

level 0      as planned
level 1 ...  batches halved, down to single images
then         the next backend that `auto` would take, again with halved batches
"""

from collections.abc import Generator

from cascade_rt.bundles.bundle import Bundle
from cascade_rt.engines import BACKENDS, EngineRequest, Engines, cannot_open, open_engines
from cascade_rt.errors import BundleError, CascadeError, UsageError


def attempts(bundle: Bundle, engines: Engines, request: EngineRequest | None) -> Generator[Engines]:
    """Yield the engines to try a scan on: those that are open, then each fallback for when they ran out of memory.

    Batches that were halved stay halved for later scans. Engines of another backend are closed when the next are asked
    for, so that one huge scan does not slow down ten thousand others.

    Args:
        bundle: The bundle that the engines run.
        engines: The open engines.
        request: What was asked for when they were opened; only the backend `auto` allows others. None: no fallbacks.
    """
    yield engines
    if request is None:
        return
    if engines.halve_batches():
        yield engines
    if request.backend != "auto":
        return
    current = engines.stage1.info.backend
    reasons = [*engines.passed_over, f"{current} ran out of memory"]
    passed = 0
    for backend in BACKENDS[BACKENDS.index(current) + 1 :] if current in BACKENDS else ():
        try:
            others = open_engines(bundle, backend, request.precision, request.plans, request.device)
        except CascadeError as error:
            if not (cannot_open(error) or isinstance(error, BundleError | UsageError)):
                raise
            reasons.append(str(error))
            continue
        passed += 1
        with others:
            others.halve_batches()
            others.passed_over, others.levels_before = tuple(reasons), engines.level + passed
            yield others
        reasons.append(f"{backend} ran out of memory")
