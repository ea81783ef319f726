"""Arms of a benchmark: a backend in a precision, optionally with a restricted search."""

from dataclasses import dataclass, replace
from typing import cast, get_args

from cascade_rt.engines import BACKENDS, PRECISIONS_OF, Backend, PrecisionChoice
from cascade_rt.errors import UsageError
from cascade_rt.scans.search import WHOLE_SCAN, SearchOptions

PRECISION_CHOICES: tuple[PrecisionChoice, ...] = get_args(PrecisionChoice)


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to segment a scan."""

    backend: Backend
    precision: PrecisionChoice = "auto"
    search: SearchOptions = WHOLE_SCAN

    @property
    def name(self) -> str:
        """Name as typed by the user: `onnxruntime`, `onnxruntime:fp32`, `onnxruntime:fp32+z-search=4+body-box`."""
        precision = "" if self.precision == "auto" else f":{self.precision}"
        every = f"+z-search={self.search.first_every}" if self.search.first_every > 1 else ""
        return f"{self.backend}{precision}{every}{'+body-box' if self.search.body_box else ''}"


def parse_arms(text: str) -> tuple[Arm, ...]:
    """Parse comma-separated names of arms, such as `onnxruntime,pytorch:fp32+z-search=4`.

    Each is a backend, optionally with a precision and with the options `--z-search` and `--body-box` of `infer`.

    Raises:
        UsageError: A backend, precision or option is unknown, or an arm is named twice.
    """
    arms = tuple(_parse_arm(part.strip()) for part in text.split(","))
    for arm in arms:
        if arms.count(arm) > 1:
            raise UsageError(f"arm {arm.name!r} is listed twice; list it once")
    return arms


def all_arms() -> tuple[Arm, ...]:
    """Return every backend in every precision it supports. No single machine can run most of them."""
    return tuple(Arm(backend, precision) for backend in BACKENDS for precision in PRECISIONS_OF[backend])


def _parse_arm(text: str) -> Arm:
    engine, *options = text.split("+")
    backend, colon, precision = engine.partition(":")
    if backend not in BACKENDS:
        raise UsageError(f"arm {text!r}: unknown backend {backend!r}; choose from {', '.join(BACKENDS)}")
    if colon and precision not in PRECISION_CHOICES:
        raise UsageError(f"arm {text!r}: unknown precision {precision!r}; choose from {', '.join(PRECISION_CHOICES)}")
    return Arm(backend, cast(PrecisionChoice, precision) if colon else "auto", _parse_search(text, options))


def _parse_search(text: str, options: list[str]) -> SearchOptions:
    search = WHOLE_SCAN
    for option in options:
        name, _, value = option.partition("=")
        if name == "z-search" and value.isascii() and value.isdigit():
            search = replace(search, first_every=int(value))
        elif option == "body-box":
            search = replace(search, body_box=True)
        else:
            raise UsageError(f"arm {text!r}: unknown option {option!r}; choose from z-search=K, body-box")
    return search
