"""Where the time of a stage goes: seconds by kind of operator, as the profilers of the engines tell."""

import json
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from cascade_rt.bundles.bundle import Bundle, read_bundle
from cascade_rt.common.processors import available_cpus
from cascade_rt.common.tensors import CPU_BATCH, STAGE_SPECS, Stage
from cascade_rt.engines.base import Array
from cascade_rt.engines.openvino_session import openvino_core

RUNS, WARM_UPS = 5, 2
Seconds = dict[str, float]


def stage_images(stage: Stage, shape: tuple[int, int], batch: int | None = None) -> dict[str, Array]:
    """Noise in the range of a stage, as many images as the pipeline takes at once on a CPU."""
    images = np.random.default_rng(0).random((batch or CPU_BATCH[stage], 1, *shape), dtype=np.float32)
    return {STAGE_SPECS[stage].inputs[0].name: images * 340 - 100 if stage == "stage1" else images}


def profile(profiler: str, bundle: Path, stage: Stage, shape: tuple[int, int]) -> Seconds:
    """Seconds of one run by operator, largest first, by one of `PROFILERS`."""
    found = PROFILERS[profiler](read_bundle(bundle), stage, stage_images(stage, shape))
    return {name: seconds / RUNS for name, seconds in Counter(found).most_common()}


def profile_onnxruntime(bundle: Bundle, stage: Stage, images: Mapping[str, Array]) -> Seconds:
    """By node of the graph as ONNX Runtime has optimised it."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = available_cpus()
    with tempfile.TemporaryDirectory() as folder:
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = onnxruntime.InferenceSession(
            bundle.graph(stage).read_bytes(), options, providers=["CPUExecutionProvider"]
        )
        for _ in range(WARM_UPS + RUNS):
            session.run(None, dict(images))
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return _of_last_runs(events)


def _of_last_runs(events: list[dict[str, object]]) -> Seconds:
    """Add up the kernels of all runs behind the warm-ups."""
    runs = sorted((each for each in events if each["name"] == "model_run"), key=lambda each: float(str(each["ts"])))
    begin = float(str(runs[WARM_UPS]["ts"]))
    found: Seconds = {}
    for event in events:
        if event["cat"] == "Node" and str(event["name"]).endswith("_kernel_time") and float(str(event["ts"])) >= begin:
            arguments = event["args"]
            operator = str(arguments["op_name"]) if isinstance(arguments, dict) else "?"
            found[operator] = found.get(operator, 0.0) + float(str(event["dur"])) / 1e6
    return found


def profile_openvino(bundle: Bundle, stage: Stage, images: Mapping[str, Array], hint: str = "f32") -> Seconds:
    """By node of OpenVINO's own graph."""
    settings = {"PERF_COUNT": True, "INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": available_cpus()}
    core = openvino_core()
    model = core.read_model(bundle.graph(stage).read_bytes())
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    found: Seconds = {}
    for number in range(WARM_UPS + RUNS):
        request.infer(dict(images))
        if number >= WARM_UPS:
            for node in request.profiling_info:
                found[node.node_type] = found.get(node.node_type, 0.0) + node.real_time.total_seconds()
    return {name: seconds for name, seconds in found.items() if seconds}


def profile_openvino_bf16(bundle: Bundle, stage: Stage, images: Mapping[str, Array]) -> Seconds:
    """The same in bfloat16."""
    return profile_openvino(bundle, stage, images, "bf16")


def profile_pytorch(bundle: Bundle, stage: Stage, images: Mapping[str, Array]) -> Seconds:
    """By operator of PyTorch eager with channels last, peer (b)."""
    import torch
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as torch_profile

    from cascade_rt.models.cascade_model import Stage1Graph, Stage2Graph
    from cascade_rt.models.weights import load_model

    model = load_model(bundle)
    graph = (Stage1Graph(model) if stage == "stage1" else Stage2Graph(model)).eval()
    graph = graph.to(memory_format=torch.channels_last)
    image = torch.from_numpy(next(iter(images.values()))).to(memory_format=torch.channels_last)
    with torch.inference_mode():
        for _ in range(WARM_UPS):
            graph(image)
        with torch_profile(activities=[ProfilerActivity.CPU]) as profiler:
            for _ in range(RUNS):
                graph(image)
    return {event.key: event.self_cpu_time_total / 1e6 for event in profiler.key_averages()}


PROFILERS: Mapping[str, Callable[[Bundle, Stage, Mapping[str, Array]], Seconds]] = {
    "onnxruntime:fp32": profile_onnxruntime,
    "openvino:fp32": profile_openvino,
    "openvino:bf16": profile_openvino_bf16,
    "torch-best": profile_pytorch,
}
"""By the name of the arm."""
