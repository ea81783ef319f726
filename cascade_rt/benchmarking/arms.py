"""What is measured: a backend in a precision, by the name that people type."""

from dataclasses import dataclass
from typing import cast, get_args

from cascade_rt.engines import BACKENDS, Backend, PrecisionChoice
from cascade_rt.errors import UsageError

PRECISION_CHOICES: tuple[PrecisionChoice, ...] = get_args(PrecisionChoice)


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to segment a scan."""

    backend: Backend
    precision: PrecisionChoice = "auto"

    @property
    def name(self) -> str:
        """As it is typed: `onnxruntime`, `onnxruntime:fp32`."""
        return self.backend if self.precision == "auto" else f"{self.backend}:{self.precision}"


def parse_arms(text: str) -> tuple[Arm, ...]:
    """Read `onnxruntime,pytorch:fp32`: names with commas between them, each with or without a precision.

    Raises:
        UsageError: A backend or a precision is not known, or an arm is named twice.
    """
    arms = tuple(_parse_arm(part.strip()) for part in text.split(","))
    for arm in arms:
        if arms.count(arm) > 1:
            raise UsageError(f"arm {arm.name!r} is named twice; name it once")
    return arms


def all_arms() -> tuple[Arm, ...]:
    """Every backend in every precision; most do not run on any one machine."""
    precisions = [precision for precision in PRECISION_CHOICES if precision != "auto"]
    return tuple(Arm(backend, precision) for backend in BACKENDS for precision in precisions)


def _parse_arm(text: str) -> Arm:
    backend, colon, precision = text.partition(":")
    if backend not in BACKENDS:
        raise UsageError(f"arm {text!r}: there is no backend {backend!r}; choose from {', '.join(BACKENDS)}")
    if colon and precision not in PRECISION_CHOICES:
        raise UsageError(
            f"arm {text!r}: there is no precision {precision!r}; choose from {', '.join(PRECISION_CHOICES)}"
        )
    return Arm(backend, cast(PrecisionChoice, precision) if colon else "auto")
