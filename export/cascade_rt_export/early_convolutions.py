"""The convolutions behind those that read the image, as many as half precision can spare."""

from collections.abc import Iterator, Mapping

from onnx import NodeProto

from cascade_rt_export.fp16_rules import Wiring, image_readers

NEAR_IMAGE_SHARE = 0.045
"""The share of the convolutions' work that may stay in float32 on this account; 0.05 would be refused."""


def early_convolutions(wiring: Wiring, work: Mapping[str, int]) -> Iterator[NodeProto]:
    """Convolutions that read nothing but what those on the image have made, and the ReLUs between them.

    What they round, all of the network reads. They are taken in the order of the graph while they and the readers of
    the image do no more than `NEAR_IMAGE_SHARE` of the work.

    Args:
        wiring: The graph.
        work: Multiplications of each convolution by its name.
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
        elif node.op_type == "Conv" and spent + work[node.name] <= NEAR_IMAGE_SHARE * sum(work.values()):
            spent += work[node.name]
            yield from (*between, node)
