"""Open ONNX Runtime sessions on the CPU, for analyzing graphs rather than segmenting scans."""

import onnxruntime
from onnx import ModelProto

from cascade_rt.common.processors import available_cpus


def cpu_session(graph: ModelProto, *, optimised: bool = True) -> onnxruntime.InferenceSession:
    """Open an in-memory graph. Unless `optimised`, it is run node by node exactly as written."""
    levels = onnxruntime.GraphOptimizationLevel
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimised else levels.ORT_DISABLE_ALL
    options.intra_op_num_threads = available_cpus()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        graph.SerializeToString(), sess_options=options, providers=["CPUExecutionProvider"]
    )
