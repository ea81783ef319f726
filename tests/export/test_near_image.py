"""Convolutions behind those that read the image stay in float32, as many as half precision can spare."""

import numpy as np
import pytest

from cascade_rt_export.known_dangers import Wiring
from cascade_rt_export.near_image import near_image
from tests.half_graphs import model, node, of_stage

WEIGHTS = {name: np.ones((1, 1, 1, 1), np.float32) for name in ("wa", "wb", "wc", "wd")}
CHAIN = of_stage(
    model(
        [
            node("Conv", "x wa", "a"),
            node("Relu", "a", "a_relu"),
            node("MaxPool", "a_relu", "a_pool", kernel_shape=[2, 2], strides=[2, 2]),
            node("Conv", "a_pool wb", "b"),
            node("Relu", "b", "b_relu"),
            node("Sigmoid", "b_relu", "b_other"),
            node("Conv", "b_relu wc", "c"),
            node("Conv", "b_other wd", "d"),
            node("Add", "c d", "y"),
        ],
        WEIGHTS,
        rank=4,
    )
)


@pytest.mark.parametrize(
    ("work", "kept"),
    [
        ({"a": 10, "b": 10, "c": 10, "d": 970}, ["a_relu", "a_pool", "b", "b_relu", "c"]),
        ({"a": 10, "b": 30, "c": 10, "d": 950}, ["a_relu", "a_pool", "b"]),
        ({"a": 10, "b": 100, "c": 10, "d": 880}, []),
    ],
    ids=["all that reads them", "as much as can be spared", "nothing where the first is too much"],
)
def test_what_lies_behind_the_image_is_kept_in_order_while_it_can_be_spared(
    work: dict[str, int], kept: list[str]
) -> None:
    assert [each.name for each in near_image(Wiring(CHAIN), work)] == kept
