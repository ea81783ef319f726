"""What TensorRT-RTX makes of the half-precision graphs, without a GPU: layers, casts and types of convolutions.

    python -m benchmarks.gpu.layers [--base-width 64] [--bundle BUNDLE] [-o results.jsonl]

Two graphs of each stage: `kept`, with the convolutions near the image in float32, and `halves`, in which they read the
image in halves (docs/decisions/0029). Each is built for a compute capability and its layers are counted. One line of
JSON for each graph, and a table. Counts are not times.
"""

import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import click
import onnx
from onnx import ModelProto

from benchmarks.gpu.lines import Lines
from benchmarks.gpu.network import CALIBRATION_SIDE, Task, noise, random_network
from benchmarks.machine import commit, processor_name
from cascade_rt.bundles.bundle import Bundle, read_bundle
from cascade_rt.common.tensors import STAGE_SPECS, STAGES, Stage
from cascade_rt.config import CascadeConfig
from cascade_rt.engines.doctor import package_versions
from cascade_rt.engines.engine_cache import BuildOptions
from cascade_rt.errors import CascadeError
from cascade_rt_export.half_precision import Kept, half_precision_graph, to_half
from cascade_rt_export.keep_plan import KeptNode, image_in_halves
from cascade_rt_export.onnx_graph import onnx_from_stage
from cascade_rt_export.trt_build import EngineFacts, build_engine

DEFAULT_OUTPUT = Path(__file__).parents[1] / "results" / "layers.jsonl"
PATH = click.Path(path_type=Path)
COLUMNS: Mapping[str, str] = {
    "network": "network",
    "stage": "stage",
    "graph": "graph",
    "half_share": "work of convolutions in FP16",
    "single_convolutions": "convolutions in FP32",
    "casts": "casts in the graph",
    "layers": "layers",
    "convolution_layers": "of them convolutions",
    "cast_layers": "with a cast",
}
"""Title of each column of the table, by its key in a line."""
_CONVOLUTION_KINDS = ("correlation", "deconv", "runtime_fusion", "gemm")


@dataclass(frozen=True, slots=True)
class Graph:
    """A stage of a network in half precision."""

    network: str
    config: CascadeConfig
    stage: Stage
    name: Literal["kept", "halves"]
    model: ModelProto


@click.command()
@click.option(
    "--base-width", "widths", type=click.IntRange(8), multiple=True, help="Width of a network of random weights."
)
@click.option("--bundle", "bundles", type=PATH, multiple=True, help="A bundle with half precision.")
@click.option("--compute-capability", default="8.0", show_default=True, help="Of the GPU to build for.")
@click.option("-o", "--output", type=PATH, default=DEFAULT_OUTPUT, help="Default: benchmarks/results/layers.jsonl.")
@click.pass_context
def main(
    context: click.Context, widths: tuple[int, ...], bundles: tuple[Path, ...], compute_capability: str, output: Path
) -> None:
    """Count the layers that TensorRT-RTX makes of networks; options for networks may be given several times."""
    machine = {"processor": processor_name(), "versions": package_versions(), "commit": commit()}
    counted = []
    try:
        lines = Lines(output, {**machine, "compute_capability": compute_capability})
        for graph in _graphs(widths, bundles):
            counted.append(count(graph, BuildOptions(compute_capability=compute_capability)))
            lines.write("layers", counted[-1])
            click.echo(f"{graph.network} {graph.stage} {graph.name}: counted", err=True)
    except CascadeError as error:
        click.echo(f"Error: {error}", err=True)
        context.exit(error.exit_code)
    click.echo(table(counted))


def _graphs(widths: Sequence[int], bundles: Sequence[Path]) -> Iterator[Graph]:
    for path in bundles:
        yield from graphs_of_bundle(read_bundle(path))
    for width in widths:
        yield from graphs_of_random_network(width)


def graphs_of_bundle(bundle: Bundle) -> Iterator[Graph]:
    """The half-precision graphs of a bundle as they are, and with the same plan but the image in halves."""
    config, name = bundle.manifest.config, bundle.manifest.name
    for stage in STAGES:
        table = bundle.manifest.half_precision[stage]["kept"]
        kept = [KeptNode(node, entry["rule"]) for entry in table for node in entry["nodes"]]
        single, half = (
            onnx.load_model_from_string(bundle.graph(stage, each).read_bytes()) for each in bundle.precisions
        )
        yield Graph(name, config, stage, "kept", half)
        yield Graph(name, config, stage, "halves", to_half(single, image_in_halves(single, kept)))


def graphs_of_random_network(base_width: int) -> Iterator[Graph]:
    """The same of networks with random weights, planned on noise."""
    network = random_network(base_width)
    for stage in STAGES:
        single = onnx_from_stage(network.model, stage)
        feeds = {STAGE_SPECS[stage].inputs[0].name: noise(Task(stage, 1, CALIBRATION_SIDE))}
        planned: list[Kept] = []

        def all_of_them(kept: Kept, planned: list[Kept] = planned) -> Kept:
            planned.append(kept)
            return kept

        name = f"random weights, base width {base_width}"
        kept_graph = half_precision_graph(single, [feeds], source="noise", fewer=all_of_them).graph
        yield Graph(name, network.config, stage, "kept", kept_graph)
        yield Graph(name, network.config, stage, "halves", to_half(single, image_in_halves(single, planned[0])))


def count(graph: Graph, options: BuildOptions) -> dict[str, Any]:
    """Build a graph and describe the layers of the engine, of all profiles together."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{graph.stage}_fp16.onnx"
        onnx.save(graph.model, path)
        built = build_engine(path, graph.stage, graph.config, flavour="tensorrt_rtx", precision="fp16", options=options)
    return {
        "network": graph.network,
        "base_width": graph.config.base_width,
        "stage": graph.stage,
        "graph": graph.name,
        "casts": sum(node.op_type == "Cast" for node in graph.model.graph.node),
        **_facts(built.facts),
    }


def _facts(facts: EngineFacts) -> dict[str, Any]:
    kinds = Counter(layer.kind for layer in facts.layers)
    return {
        "tensorrt_rtx": facts.version,
        "profiles": len(facts.profiles),
        "layers": len(facts.layers),
        "kinds": dict(sorted(kinds.items())),
        "convolution_layers": sum(kinds[kind] for kind in _CONVOLUTION_KINDS),
        "cast_layers": sum("Cast" in layer.name for layer in facts.layers),
        "half_share": facts.shares.half,
        "single_convolutions": len(facts.shares.not_half),
    }


def table(counted: Sequence[Mapping[str, Any]]) -> str:
    """The counts as a table in Markdown."""
    rows = [list(COLUMNS.values()), ["---"] * len(COLUMNS)]
    for line in counted:
        rows.append([f"{line[key]:.3%}" if key == "half_share" else str(line[key]) for key in COLUMNS])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


if __name__ == "__main__":
    main()
