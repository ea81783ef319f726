"""Where TensorRT engines come from: the seam between the engine that runs them and whatever builds or caches them."""

from dataclasses import dataclass
from typing import Protocol

from cascade_rt.bundles.bundle import Bundle
from cascade_rt.common.packages import pip_install
from cascade_rt.common.tensors import Precision, Stage
from cascade_rt.errors import BackendUnavailableError


@dataclass(frozen=True, slots=True)
class Plan:
    """A serialised TensorRT engine.

    It is executable code: run only plans that were built on this machine from a bundle whose hashes were checked.
    """

    data: bytes
    precision: Precision
    """What the engine was shown to compute in."""


class PlanSource(Protocol):
    """Yields the plan of a stage for the GPU of this machine, from a cache or by building it.

    Called only where there is a driver and a GPU and the package `tensorrt` can be imported.
    """

    def __call__(self, bundle: Bundle, stage: Stage, precision: Precision) -> Plan:
        """Return the plan.

        Raises:
            BackendUnavailableError: There is none and none can be built; one sentence.
        """
        ...


def no_plans(bundle: Bundle, stage: Stage, precision: Precision) -> Plan:
    """The source of those who have none: always BackendUnavailableError."""
    raise BackendUnavailableError(
        f"backend 'tensorrt' has no {precision} engine of {stage} of bundle {bundle.manifest.name!r} for this "
        f"GPU, and nothing was given that builds one; run: {pip_install('export')}, or take another backend"
    )
