"""What TensorRT-RTX makes of half-precision graphs is counted without a GPU."""

from collections.abc import Mapping
from typing import Any

import pytest

from benchmarks.gpu.layers import COLUMNS, Graph, count, graphs_of_bundle, table
from cascade_rt.bundles.bundle import Bundle
from cascade_rt.config import CascadeConfig
from cascade_rt.engines.engine_cache import BuildOptions
from cascade_rt_export.half_precision import to_half
from tests.half_graphs import convolutions, of_stage

LINE: Mapping[str, Any] = {**dict.fromkeys(COLUMNS, 7), "network": "small", "half_share": 0.95504}


def test_both_graphs_of_each_stage_are_counted(bundle: Bundle) -> None:
    found = list(graphs_of_bundle(bundle))
    assert [(graph.stage, graph.name) for graph in found] == [
        (stage, name) for stage in ("stage1", "stage2") for name in ("kept", "halves")
    ]
    for graph in found[1::2]:
        assert any(name.endswith("/halves") for node in graph.model.graph.node for name in node.output)


def test_a_line_says_what_was_counted() -> None:
    pytest.importorskip("tensorrt_rtx", reason="needs tensorrt-rtx-cu13")
    model = to_half(of_stage(convolutions([2.0], shrink=0.5)), ())
    graph = Graph("small", CascadeConfig(base_width=8), "stage1", "halves", model)
    line = count(graph, BuildOptions(compute_capability="8.0"))
    assert line.keys() >= COLUMNS.keys()
    assert line["half_share"] == 1
    assert line["single_convolutions"] == 0
    assert line["layers"] == sum(line["kinds"].values())


def test_the_table_has_a_row_for_each_line() -> None:
    rows = table([LINE, LINE]).splitlines()
    assert len(rows) == 4
    assert "| small |" in rows[2]
    assert "95.504%" in rows[2]
