"""Fallbacks for when memory runs out: smaller batches, then the next backend. The report records the level.

    level 0      as planned
    level 1 ...  batches halved, down to single images
    then         the next backend that `auto` would take, again with halved batches

Each scan is computed entirely on one engine. Halved batches stay halved for later scans. The original engine is
restored after each scan, so that one huge scan does not slow down ten thousand others.
"""

import os
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from cascade_rt.engines import BACKENDS, BackendChoice, Engines, PrecisionChoice, cannot_open, open_engines
from cascade_rt.engines.plans import PlanSource, no_plans
from cascade_rt.engines.splitting import SplittingEngine
from cascade_rt.errors import BundleError, CascadeError, UsageError
from cascade_rt.run.cascade import Cascade, open_cascade


class FallbackCascade(Cascade):
    """A cascade that can be retried with less memory."""

    def __init__(
        self,
        cascade: Cascade,
        backend: BackendChoice = "auto",
        precision: PrecisionChoice = "auto",
        plans: PlanSource = no_plans,
    ) -> None:
        """Wrap an open cascade.

        Args:
            cascade: The cascade, which is closed together with this one.
            backend: The backend requested when it was opened; only `auto` allows falling back to other engines.
            precision: The precision requested.
            plans: Where `tensorrt` gets its engines from.
        """
        super().__init__(cascade.bundle, cascade.engines)
        self._backend = backend
        self._precision = precision
        self._plans = plans
        self._engines_passed = 0
        self._halvings_above = 0

    @property
    def level(self) -> int:
        """Number of times memory ran out and a smaller attempt was made; `rung` in reports."""
        return self._halvings_above + self._engines_passed + _halvings(self.engines)

    @property
    def provenance(self) -> dict[str, Any]:
        """Like `Cascade.provenance`, with the fallback level."""
        return {**super().provenance, "rung": self.level}

    def fallbacks(self) -> Generator[None]:
        """Switch `engines` to each fallback in turn; closing the generator restores the original engines.

        Example:
            with closing(cascade.fallbacks()) as fallbacks:
                for _ in fallbacks:
                    ...  # retry; break on success
        """
        # Not wrapped from the start: only unsplit stages can hand over tensors on a shared device.
        self.engines = _splitting(self.engines)
        yield
        if self._backend != "auto":
            return
        current = self.engines.stage1.info.backend
        passed = 0
        said = [f"{current} ran out of memory"]
        for backend in BACKENDS[BACKENDS.index(current) + 1 :] if current in BACKENDS else ():
            try:
                engines = open_engines(self.bundle, backend, self._precision, self._plans)
            except CascadeError as error:
                if not (cannot_open(error) or isinstance(error, BundleError | UsageError)):
                    raise
                said.append(str(error))
                continue
            passed += 1
            with self._taking_over(engines, passed, said):
                yield
            said.append(f"{backend} ran out of memory")

    @contextmanager
    def _taking_over(self, engines: Engines, passed: int, said: Sequence[str]) -> Generator[None]:
        """Use other engines inside this context.

        Args:
            engines: The other engines, closed at the end.
            passed: Number of engines opened so far beyond the original ones.
            said: Why the engines before them were passed over.
        """
        top = self.engines
        self._halvings_above, self._engines_passed = _halvings(top), passed
        self.engines = _splitting(replace(engines, passed_over=(*top.passed_over, *said)))
        try:
            with engines:
                yield
        finally:
            self.engines, self._halvings_above, self._engines_passed = top, 0, 0


def open_fallback_cascade(
    bundle: str | os.PathLike[str] | None = None,
    backend: BackendChoice = "auto",
    precision: PrecisionChoice = "auto",
    plans: PlanSource = no_plans,
    public_key: Path | None = None,
    *,
    bundle_sha256: str | None = None,
) -> FallbackCascade:
    """Open a bundle as `open_cascade` does, with fallbacks for when memory runs out.

    Args:
        bundle: See `open_cascade`.
        backend: See `open_cascade`.
        precision: See `open_cascade`.
        plans: See `open_cascade`.
        public_key: See `open_cascade`.
        bundle_sha256: Hash that the bundle must have; None accepts any.

    Raises:
        BundleError: See `open_cascade`. Also raised if the bundle does not have the given hash.
        BackendUnavailableError: See `open_cascade`.
        UsageError: See `open_cascade`.
    """
    cascade = open_cascade(bundle, backend, precision, plans, public_key)
    if bundle_sha256 not in {None, cascade.bundle.sha256}:
        cascade.close()
        raise BundleError(f"{bundle}: was exchanged while it was used; start again")
    return FallbackCascade(cascade, backend, precision, plans)


def _splitting(engines: Engines) -> Engines:
    if isinstance(engines.stage1, SplittingEngine):
        return engines
    return replace(engines, stage1=SplittingEngine(engines.stage1), stage2=SplittingEngine(engines.stage2))


def _halvings(engines: Engines) -> int:
    return sum(each.halvings for each in (engines.stage1, engines.stage2) if isinstance(each, SplittingEngine))
