"""What does cuCtxDetach answer on a primary context? In a process of its own: it may destroy the context, or crash.

    python -m benchmarks.gpu.expedition.detach

pycuda calls it when a primary context is forgotten. Prints one object in JSON.
"""

import ctypes
import json


def main() -> None:
    """Retain the primary context twice, as PyTorch and pycuda do, detach it once, and see what is left."""
    driver = ctypes.CDLL("libcuda.so.1")
    device, context, current = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_void_p()
    flags, active, memory = ctypes.c_uint(), ctypes.c_int(), ctypes.c_size_t()
    driver.cuInit(0)
    driver.cuDeviceGet(ctypes.byref(device), 0)
    for _ in range(2):
        driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), device)
    driver.cuCtxPushCurrent_v2(context)
    found = {"exists": hasattr(driver, "cuCtxDetach")}
    if found["exists"]:
        found["status"] = driver.cuCtxDetach(context)
    print(json.dumps(found), flush=True)
    driver.cuCtxGetCurrent(ctypes.byref(current))
    driver.cuDevicePrimaryCtxGetState(device, ctypes.byref(flags), ctypes.byref(active))
    found |= {"still_current": current.value == context.value, "active": bool(active.value)}
    driver.cuCtxSetCurrent(context)
    allocated = driver.cuMemAlloc_v2(ctypes.byref(memory), ctypes.c_size_t(1024))
    found |= {"allocation_status": allocated}
    print(json.dumps(found), flush=True)
    released = []
    for _ in range(3):
        released.append(driver.cuDevicePrimaryCtxRelease_v2(device))
        driver.cuDevicePrimaryCtxGetState(device, ctypes.byref(flags), ctypes.byref(active))
        if not active.value:
            break
    # Two, if cuCtxDetach took no reference; one, if it did.
    print(json.dumps(found | {"release_statuses": released, "active_at_the_end": bool(active.value)}), flush=True)


if __name__ == "__main__":
    main()
