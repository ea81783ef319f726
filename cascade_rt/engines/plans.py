"""The interface between the engine that runs TensorRT plans and the code that builds or caches them."""

from dataclasses import dataclass
from typing import Protocol

from cascade_rt.bundles.bundle import Bundle
from cascade_rt.common.tensors import Precision, Stage
from cascade_rt.errors import BackendUnavailableError


@dataclass(frozen=True, slots=True)
class Plan:
    """A serialized TensorRT engine.

    A plan is executable code: run only plans that were built on this machine from a bundle whose hashes were verified.
    """

    data: bytes
    precision: Precision
    """The precision that the engine was built to compute in."""
    doubt: str = ""
    """Why it is not proven that the engine computes in this precision, in one sentence. Empty if it is."""


class PlanSource(Protocol):
    """Returns the plan of a stage for a GPU of this machine, from a cache or by building it.

    Called only if a driver and a GPU exist and the package `tensorrt` can be imported.
    """

    def __call__(self, bundle: Bundle, stage: Stage, precision: Precision, device: int) -> Plan:
        """Return the plan.

        Args:
            bundle: The bundle.
            stage: The stage that the plan runs.
            precision: The precision that it computes in.
            device: Number of the GPU among those that this process sees.

        Raises:
            BackendUnavailableError: No plan exists and none can be built. The message is one sentence.
        """
        ...


def no_plans(bundle: Bundle, stage: Stage, precision: Precision, device: int) -> Plan:  # noqa: ARG001
    """Raise BackendUnavailableError: the default source, which has no plans."""
    raise BackendUnavailableError(
        f"backend 'tensorrt' has no {precision} engine for {stage} of bundle {bundle.manifest.name!r} on this "
        "GPU, and no builder was given; pass `plans`, such as cascade_rt_export.plans.built_plans(), or choose "
        "another backend"
    )
