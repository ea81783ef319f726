"""Verify that an engine computes in the precision it is named after.

If the builder falls back to float32, the build still succeeds and the engine still segments, only more slowly: `fp16`
would be a mere label. The layers of the engine are therefore read, and the convolution work is summed by type.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from cascade_rt.common.tensors import Precision
from cascade_rt.common.tolerances import LEAST_HALF_SHARE
from cascade_rt.errors import EngineBuildError
from cascade_rt_export.trt_layers import EngineLayer, NumberType

_ROUNDING = 1e-9

WorkType = Literal["half", "single", "tf32", "other", "unproven"]


@dataclass(frozen=True, slots=True)
class Convolution:
    """A convolution of the ONNX graph."""

    work: int
    """Multiplications, for the same image size in all convolutions."""
    weights: int
    """Number of elements of its weight."""


@dataclass(frozen=True, slots=True)
class WorkShares:
    """Shares of the convolution work by the type it is computed in. They add up to 1."""

    half: float
    single: float
    tf32: float
    """Float32 with inputs rounded to 10 bits, which an FP32 engine must not use."""
    other: float
    """Another floating-point type, or several types."""
    unproven: float
    """Convolutions for which no layer with weights of their size was found."""
    not_half: tuple[str, ...]
    """Names of the convolutions that are not in half precision, most work first."""
    not_single: tuple[str, ...]
    """Names of the convolutions that are not in float32, most work first."""

    def to_json(self) -> dict[str, Any]:
        """Return the shares as plain values, without the names of convolutions."""
        return {name: value for name, value in asdict(self).items() if not name.startswith("not_")}


NOTHING_KNOWN = WorkShares(half=0.0, single=0.0, tf32=0.0, other=0.0, unproven=1.0, not_half=(), not_single=())
"""The shares of an engine whose layers cannot be read."""


def work_shares(layers: Iterable[EngineLayer], convolutions: Mapping[str, Convolution]) -> WorkShares:
    """Sum the convolution work of an engine by type.

    A convolution is matched with the layers that name it and hold constants with at least as many elements as its
    weight, in one piece or several. The type of most of these elements is the type it is computed in. An engine
    contains the convolution once per profile, and all must agree.

    Args:
        layers: The layers of the engine.
        convolutions: The convolutions of the graph that the engine was built from, by name.

    Raises:
        EngineBuildError: The graph has no convolutions.
    """
    layers = list(layers)
    types = {name: _type_of(name, convolution, layers) for name, convolution in convolutions.items()}
    total = sum(convolution.work for convolution in convolutions.values())
    if total == 0:
        raise EngineBuildError("the graph has no convolutions whose precision could be verified")

    def share(wanted: WorkType) -> float:
        return sum(convolutions[name].work for name, kind in types.items() if kind == wanted) / total

    def others(wanted: WorkType) -> tuple[str, ...]:
        names = [name for name, kind in types.items() if kind != wanted]
        return tuple(sorted(names, key=lambda name: (-convolutions[name].work, name)))

    return WorkShares(
        half=share("half"),
        single=share("single"),
        tf32=share("tf32"),
        other=share("other"),
        unproven=share("unproven"),
        not_half=others("half"),
        not_single=others("single"),
    )


def _type_of(name: str, convolution: Convolution, layers: Sequence[EngineLayer]) -> WorkType:
    found: set[WorkType] = set()
    for layer in layers:
        if name in layer.nodes:
            elements: Counter[NumberType] = Counter()
            for weights in layer.weights:
                elements[weights.type] += weights.elements
            if elements.total() >= convolution.weights:
                ((kind, _),) = elements.most_common(1)
                found.add("tf32" if kind == "single" and "tf32" in layer.tactic.lower() else kind)
    if not found:
        return "unproven"
    return found.pop() if len(found) == 1 else "other"


def check_precision(shares: WorkShares, precision: Precision, what: str) -> None:
    """Refuse an engine that does not compute in the precision asked for.

    Args:
        shares: The result of `work_shares`.
        precision: The requested precision. `fp16` requires at least `LEAST_HALF_SHARE` of the work to be in half
            precision. `fp32` requires the same share to be shown to be in float32, and none to be in any other type.
        what: Description of the engine for the message.

    Raises:
        EngineBuildError: The engine does not compute in this precision.
    """
    if precision == "fp16":
        found, wrong, kind, others = shares.half, 0.0, "half precision", shares.not_half
    else:
        found, wrong, kind, others = shares.single, 1 - shares.single - shares.unproven, "float32", shares.not_single
    if found < LEAST_HALF_SHARE or wrong > _ROUNDING:
        raise EngineBuildError(
            f"{what}: {found:.2%} of the convolution work is in {kind}, too little for {precision} "
            f"(not: {_some(others)}); was the {precision} graph used?"
        )


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
