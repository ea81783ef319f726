"""Search for the kept nodes that the task needs, by testing whether the masks stay the same."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from onnx import ModelProto

from cascade_rt.common.comparison import Agreement, compare
from cascade_rt.common.tolerances import GATE_LIMITS, Limits
from cascade_rt.engines.base import Array
from cascade_rt.engines.stage_bridge import MASK_THRESHOLD
from cascade_rt.errors import InputError, ParityError
from cascade_rt_export.cpu_session import cpu_session
from cascade_rt_export.half_precision import to_half
from cascade_rt_export.half_rounding import rounding_graph
from cascade_rt_export.keep_plan import KeptNode, image_in_halves

MOST_TRIALS = 32
"""Maximum number of graphs that a search tries."""
ALWAYS_KEPT = frozenset({"lengths", "operator", "window"})
"""Rules that a search must not drop. They guard against failures that depend on sizes and inputs that a trial may not
contain, and none of them keeps a convolution in float32."""
MEASURED = frozenset({"faint", "large", "weight"})
"""Rules whose nodes a search may drop individually. The nodes of any other rule are dropped together or not at all."""


def smallest_kept(
    graph: ModelProto,
    kept: Sequence[KeptNode],
    holds: Callable[[ModelProto], bool],
    *,
    most_trials: int = MOST_TRIALS,
) -> tuple[KeptNode, ...]:
    """Drop kept nodes by bisection as long as the task still succeeds.

    All nodes are dropped first. If that fails, one half is tried and then the other, recursively. The result is small
    but not necessarily minimal: a node found necessary early may become unnecessary once another is kept.

    Args:
        graph: The float32 graph.
        kept: The plan that the search starts from.
        holds: Returns whether a half-precision graph still performs its task, such as `same_masks`.
        most_trials: Maximum number of calls of `holds`. Nodes still undecided then are kept.

    Returns:
        The nodes still kept, in the order of the plan. The search is deterministic.

    Raises:
        ParityError: The task fails even with the whole plan.
    """
    search = _Search(graph, kept, holds, most_trials)
    if not search.holds_without(frozenset()):
        raise ParityError(
            "half precision fails its trial even with all planned nodes in float32; deploy the float32 graph"
        )
    dropped = search.droppable(_groups(kept), frozenset())
    return tuple(node for node in kept if node.name not in dropped)


def halves_if_same(
    graph: ModelProto, kept: Sequence[KeptNode], holds: Callable[[ModelProto], bool]
) -> tuple[KeptNode, ...]:
    """Let the first convolutions read the image in halves, and keep none behind them, if the task still succeeds.

    Args:
        graph: The float32 graph.
        kept: The plan to start from.
        holds: Returns whether a half-precision graph still performs its task, such as `same_masks`.

    Returns:
        `image_in_halves` of the plan, or the plan itself.
    """
    fewer = image_in_halves(graph, kept)
    return fewer if holds(to_half(graph, fewer)) else tuple(kept)


def same_masks(
    graph: ModelProto,
    inputs: Iterable[Mapping[str, Array]],
    output: str,
    *,
    least_dice: float = GATE_LIMITS["fp16"].least_dice,
) -> Callable[[ModelProto], bool]:
    """Make the search criterion: does a half-precision graph find the same masks as the float32 graph?

    Args:
        graph: The float32 graph.
        inputs: Slices or crops. The Dice is pooled over all their pixels.
        output: Name of the probability map to compare.
        least_dice: Least Dice that still counts as the same.

    Raises:
        InputError: The float32 graph finds nothing in any of the inputs, so the comparison would be meaningless.
    """
    feeds = [dict(entry) for entry in inputs]
    expected = _run(graph, feeds, output)
    if not any((prob >= MASK_THRESHOLD).any() for prob in expected):
        raise InputError("the float32 graph finds nothing in the inputs; pass some in which it does")

    def holds(half: ModelProto) -> bool:
        pairs = zip(expected, _run(rounding_graph(half), feeds, output), strict=True)
        found = sum((compare(*pair, {"mask": MASK_THRESHOLD}) for pair in pairs), start=Agreement())
        return math.isfinite(found.max_error) and not found.missed(Limits(least_dice=least_dice))

    return holds


class _Search:
    """State of one search: the plan, the criterion and the number of trials left."""

    def __init__(
        self, graph: ModelProto, kept: Sequence[KeptNode], holds: Callable[[ModelProto], bool], most_trials: int
    ) -> None:
        self.graph = graph
        self.kept = kept
        self.holds = holds
        self.trials_left = most_trials

    def holds_without(self, names: frozenset[str]) -> bool:
        """Return whether the task holds with these nodes in half precision. False once no trials are left."""
        if not self.trials_left:
            return False
        self.trials_left -= 1
        return self.holds(to_half(self.graph, [node for node in self.kept if node.name not in names]))

    def droppable(self, groups: Sequence[frozenset[str]], dropped: frozenset[str]) -> frozenset[str]:
        """Return the names that can be dropped: those already dropped, and as many of the groups as possible."""
        if not groups:
            return dropped
        tried = dropped.union(*groups)
        if self.holds_without(tried):
            return tried
        if len(groups) == 1:
            return dropped
        middle = len(groups) // 2
        return self.droppable(groups[middle:], self.droppable(groups[:middle], dropped))


def _groups(kept: Iterable[KeptNode]) -> list[frozenset[str]]:
    """Return the groups of nodes that are dropped together, in the order of the plan."""
    groups: dict[tuple[str, str], set[str]] = {}
    for node in kept:
        if node.rule not in ALWAYS_KEPT:
            groups.setdefault((node.rule, node.name if node.rule in MEASURED else ""), set()).add(node.name)
    return [frozenset(names) for names in groups.values()]


def _run(graph: ModelProto, inputs: Iterable[Mapping[str, Array]], output: str) -> list[Array]:
    session = cpu_session(graph)
    return [session.run([output], dict(feeds))[0] for feeds in inputs]
