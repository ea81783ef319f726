"""Binarize probabilities in GPU memory, so that one byte per pixel crosses the bus instead of four.

The kernel is PTX, which the driver compiles for its GPU, so users do not need a compiler. Not measured: nothing here
has run on a GPU yet.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from cascade_rt.engines.base import Array
from cascade_rt.engines.device_images import DeviceImage
from cascade_rt.engines.stage_bridge import MASK_THRESHOLD, ROUNDING

NOT_A_PROBABILITY = 2
"""Value that the kernel writes for NaN and for values too far outside 0 to 1."""
_THREADS = 256

PTX = """
//  extern "C" __global__ void as_mask(const float *source, unsigned char *target, unsigned count,
//                                     float threshold, float lowest, float highest) {
//      unsigned index = blockIdx.x * blockDim.x + threadIdx.x;
//      if (index >= count) return;
//      float value = source[index];
//      bool probability = value >= lowest && value <= highest;
//      target[index] = probability ? value >= threshold : 2;
//  }
.version 6.3
.target sm_75
.address_size 64

.visible .entry as_mask(
    .param .u64 source, .param .u64 target, .param .u32 count,
    .param .f32 threshold, .param .f32 lowest, .param .f32 highest)
{
    .reg .pred %outside, %over, %low, %high, %bad;
    .reg .b32 %index, %block, %size, %count, %found;
    .reg .f32 %value, %threshold, %lowest, %highest;
    .reg .b64 %from, %to, %offset;

    mov.u32         %block, %ctaid.x;
    mov.u32         %size, %ntid.x;
    mov.u32         %index, %tid.x;
    mad.lo.u32      %index, %block, %size, %index;
    ld.param.u32    %count, [count];
    setp.ge.u32     %outside, %index, %count;
    @%outside ret;

    ld.param.u64    %from, [source];
    cvta.to.global.u64 %from, %from;
    mul.wide.u32    %offset, %index, 4;
    add.u64         %from, %from, %offset;
    ld.global.f32   %value, [%from];

    ld.param.f32    %threshold, [threshold];
    ld.param.f32    %lowest, [lowest];
    ld.param.f32    %highest, [highest];
    setp.ge.f32     %over, %value, %threshold;
    selp.u32        %found, 1, 0, %over;
    // Unordered comparisons are true of what is not a number.
    setp.ltu.f32    %low, %value, %lowest;
    setp.gtu.f32    %high, %value, %highest;
    or.pred         %bad, %low, %high;
    selp.u32        %found, 2, %found, %bad;

    ld.param.u64    %to, [target];
    cvta.to.global.u64 %to, %to;
    cvt.u64.u32     %offset, %index;
    add.u64         %to, %to, %offset;
    st.global.u8    [%to], %found;
    ret;
}
"""


class MaskKernel:
    """The kernel, loaded into the current context. `close` unloads it, in the same context.

    Loading makes the driver compile the PTX, so a session loads it once.
    """

    def __init__(self, cuda: Any) -> None:
        self._module = cuda.module_from_buffer(PTX.encode("ascii"))
        self._function = self._module.get_function("as_mask")
        self._function.prepare("PPIfff")

    def enqueue(self, stream: Any, source: int, target: int, pixels: int) -> None:
        """Binarize the float32 pixels at one device address into bytes at another."""
        blocks = (-(-pixels // _THREADS), 1)
        limits = (MASK_THRESHOLD, -ROUNDING, 1 + ROUNDING)
        self._function.prepared_async_call(blocks, (_THREADS, 1, 1), stream, source, target, pixels, *limits)

    def close(self) -> None:
        """Unload the kernel."""
        # pycuda unloads a module with the last reference to it, and a function refers to its module.
        del self._function, self._module


class DeviceMasks:
    """Binarizes images. Buffers are kept for each total number of pixels until `close`."""

    def __init__(self, cuda: Any, stream: Any, kernel: MaskKernel) -> None:
        """Start without buffers.

        Args:
            cuda: `pycuda.driver`. The GPU's context must be current whenever a method is called.
            stream: The stream for all work.
            kernel: The kernel.
        """
        self._cuda = cuda
        self._stream = stream
        self._kernel = kernel
        self._device: dict[int, Any] = {}
        self._host: dict[int, Array] = {}

    def read(self, images: Sequence[DeviceImage]) -> Array:
        """Binarize probability images and copy the masks to the host.

        Args:
            images: At least one image, all of equal size.

        Returns:
            `[image, 1, row, col]`, uint8, valid until the next call: 1 where the probability is at least
            `MASK_THRESHOLD`, `NOT_A_PROBABILITY` where the value is not a probability, 0 elsewhere.
        """
        rows, cols = images[0].rows, images[0].cols
        pixels = rows * cols
        size = len(images) * pixels
        if size not in self._device:
            buffers = self._cuda.mem_alloc(size), self._cuda.pagelocked_empty(size, np.uint8)
            self._device[size], self._host[size] = buffers
        device, host = self._device[size], self._host[size]
        for number, image in enumerate(images):
            self._kernel.enqueue(self._stream, int(image.memory), int(device) + number * pixels, pixels)
        self._cuda.memcpy_dtoh_async(host, device, self._stream)
        self._stream.synchronize()
        return host.reshape(len(images), 1, rows, cols)

    def close(self) -> None:
        """Free all buffers."""
        self._stream = None
        while self._device:
            self._device.popitem()[1].free()
        self._host.clear()
