"""The proof that an engine computes in the precision it is named after.

A builder that falls back to float32 still builds, and the engine still segments, only slower: an `fp16` that is a label
and no more. So the layers of the engine are read, and the share of the convolution work in each type is added up.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from cascade_rt.common.tensors import Precision
from cascade_rt.errors import EngineBuildError
from cascade_rt_export.trt_layers import EngineLayer, NumberType

LEAST_SHARE = 0.95
"""Least share of the convolution work of an engine that is shown to be in its precision."""

_ROUNDING = 1e-9

WorkType = Literal["half", "single", "tf32", "other", "unproven"]


@dataclass(frozen=True, slots=True)
class Convolution:
    """A convolution of the ONNX graph."""

    work: int
    """Multiplications for an image of some size, the same for all."""
    weights: int
    """Elements of its weight."""


@dataclass(frozen=True, slots=True)
class WorkShares:
    """Shares of the convolution work by the type it is done in; they add up to 1."""

    half: float
    single: float
    tf32: float
    """In float32 rounded to 10 bits, which an FP32 engine must not do."""
    other: float
    """In another floating-point type, or in several."""
    unproven: float
    """Of convolutions that are in no layer with weights of their size."""
    not_half: tuple[str, ...]
    """Names of the convolutions that are not in half precision, the most work first."""
    not_single: tuple[str, ...]
    """Names of those that are not in float32."""

    def to_json(self) -> dict[str, Any]:
        """The shares as plain values."""
        return {name: value for name, value in asdict(self).items() if not name.startswith("not_")}


def work_shares(layers: Iterable[EngineLayer], convolutions: Mapping[str, Convolution]) -> WorkShares:
    """Add up the convolution work of an engine by type.

    A convolution is found in the layers that name it and hold constants of at least the size of its weight, in one
    piece or in several; the type of most of them is the type it is computed in. An engine has it once for each profile,
    and all must agree.

    Args:
        layers: The layers of the engine.
        convolutions: The convolutions of the graph that it was built from, by name.
    """
    layers = list(layers)
    types = {name: _type_of(name, convolution, layers) for name, convolution in convolutions.items()}
    total = sum(convolution.work for convolution in convolutions.values())
    if total == 0:
        raise EngineBuildError("the graph has no convolutions whose precision could be shown")

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
        shares: What `work_shares` found.
        precision: What it should be. `fp16`: at least `LEAST_SHARE` of the work is in half precision. `fp32`: as much
            is shown to be in float32, and none in anything else.
        what: What the engine is, for the message.

    Raises:
        EngineBuildError: It does not.
    """
    if precision == "fp16":
        found, wrong, kind, others = shares.half, 0.0, "half precision", shares.not_half
    else:
        found, wrong, kind, others = shares.single, 1 - shares.single - shares.unproven, "float32", shares.not_single
    if found < LEAST_SHARE or wrong > _ROUNDING:
        raise EngineBuildError(
            f"{what}: {found:.2%} of the convolution work is in {kind}, which is not enough for {precision} "
            f"(not: {_some(others)}); was the {precision} graph given?"
        )


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
