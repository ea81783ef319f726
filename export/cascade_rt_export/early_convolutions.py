"""Find the convolutions that follow those reading the image, up to the share of work that may stay in float32."""

from collections.abc import Iterator, Mapping

from onnx import NodeProto

from cascade_rt.common.tolerances import EARLY_CONVOLUTIONS_SHARE
from cascade_rt_export.fp16_rules import Wiring, image_readers


def early_convolutions(wiring: Wiring, work: Mapping[str, int]) -> Iterator[NodeProto]:
    """Yield the convolutions that depend only on those reading the image, and the ReLUs between them.

    The rounding errors of these convolutions reach the whole network. They are taken in graph order, as long as they
    and the image readers together do no more than `EARLY_CONVOLUTIONS_SHARE` of the work.

    Args:
        wiring: The graph.
        work: Multiplications of each convolution, by name.
    """
    made: dict[str, tuple[NodeProto, ...]] = {}
    spent = 0
    for node in image_readers(wiring):
        spent += work.get(node.name, 0)
        if node.op_type == "Conv":
            made[node.output[0]] = ()
    for node in wiring.nodes:
        sources = wiring.computed(node)
        if not sources or not made.keys() >= set(sources):
            continue
        between = tuple(each for name in sources for each in made[name])
        if node.op_type == "Relu":
            made[node.output[0]] = (*between, node)
        elif node.op_type == "Conv" and spent + work[node.name] <= EARLY_CONVOLUTIONS_SHARE * sum(work.values()):
            spent += work[node.name]
            yield from (*between, node)
