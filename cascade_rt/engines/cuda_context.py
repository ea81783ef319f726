"""Release the primary context of a GPU, which pycuda retains but does not release by itself.

PyTorch and ONNX Runtime compute in the same context. If pycuda's context object is merely forgotten, it calls
cuCtxDetach, which is deprecated and not meant for primary contexts: the driver may refuse it, or destroy the context
for all. And after an explicit `detach`, pycuda takes for granted that the driver has removed the context from the
thread's stack, which it does only for other contexts. pycuda cannot pop it any more, so the driver is asked directly.
"""

import ctypes
from collections.abc import Callable
from typing import Any

from cascade_rt.engines.nvidia import driver_library


def releaser(cuda: Any, context: Any) -> Callable[[], None]:
    """Return a function that releases a primary context. Whatever was made in it must have been freed before.

    After its call, the calling thread's stacks of contexts, pycuda's and the driver's, are as they were before.

    Args:
        cuda: `pycuda.driver`.
        context: What `retain_primary_context` returned, on the calling or another thread.
    """
    driver = driver_library()

    def release() -> None:
        outer = cuda.Context.get_current()
        context.push()
        context.detach()
        top = ctypes.c_void_p()
        driver.cuCtxPopCurrent_v2(ctypes.byref(top))
        if outer is not None:
            # pycuda has made the outer context current again, but above ours. This puts it in the place of ours.
            driver.cuCtxSetCurrent(top)

    return release
