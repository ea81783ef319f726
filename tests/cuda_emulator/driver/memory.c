// Memory of devices, which is that of the host, and page-locked memory. Every address that work uses is checked.
#include "emulator.h"

#define UNDEFINED 0xff  // as float32 it is NaN
#define FREED 0xee

struct block {
    struct block *next;
    struct device *device;  // whose memory it is, or for which it was page-locked
    bool page_locked;
    char *start;
    size_t bytes;
};
static struct block *blocks;

static struct block *block_at(const void *address, bool page_locked)
{
    for (struct block *block = blocks; block; block = block->next)
        if (block->page_locked == page_locked && (const char *)address >= block->start &&
            (const char *)address < block->start + block->bytes)
            return block;
    return NULL;
}

bool is_device_memory(const struct device *device, CUdeviceptr address, size_t bytes, const char *what)
{
    LOCKED;
    const struct block *block = block_at((const void *)address, false);
    const char *fault = !block                                                  ? "is not in device memory"
                        : address + bytes > (CUdeviceptr)block->start + block->bytes ? "reaches beyond its allocation"
                        : block->device != device                               ? "is memory of another device"
                                                                                : NULL;
    if (fault) violation("illegal address: %s, %zu bytes at 0x%llx, %s", what, bytes, address, fault);
    return !fault;
}

bool is_page_locked(const void *address, size_t bytes, const char *what)
{
    LOCKED;
    const struct block *block = block_at(address, true);
    if (block && (const char *)address + bytes <= block->start + block->bytes) return true;
    violation("%s: %zu bytes of host memory at %p are not page-locked", what, bytes, address);
    return false;
}

// For stand-ins of libraries, whose callbacks on a stream read and write device memory.
bool emulator_check(CUdeviceptr address, size_t bytes, const char *what)
{
    return is_device_memory(working_device(), address, bytes, what);
}

static CUresult allocate(char **start, size_t bytes, bool page_locked, const char *by)
{
    CUresult refused = unless_capturing(by);
    if (refused) return refused;
    LOCKED;
    struct device *device = required_device(by);
    if (!device) return CUDA_ERROR_INVALID_CONTEXT;
    if (!bytes) return CUDA_ERROR_INVALID_VALUE;
    if (!page_locked && device->is.memory_used + bytes > device->is.memory_limit) return CUDA_ERROR_OUT_OF_MEMORY;
    struct block *block = malloc(sizeof *block);
    *block = (struct block){blocks, device, page_locked, aligned_alloc(4096, (bytes + 4095) / 4096 * 4096), bytes};
    memset(block->start, UNDEFINED, bytes);
    blocks = block;
    *start = block->start;
    if (page_locked) {
        device->is.pinned_blocks++;
        return CUDA_SUCCESS;
    }
    device->is.blocks++;
    device->is.allocations++;
    device->is.memory_used += bytes;
    if (device->is.memory_used > device->is.memory_peak) device->is.memory_peak = device->is.memory_used;
    return CUDA_SUCCESS;
}

static CUresult release(void *start, bool page_locked, const char *by)
{
    CUresult refused = unless_capturing(by);
    if (refused) return refused;
    struct device *device = required_device(by);
    if (!device) return CUDA_ERROR_INVALID_CONTEXT;
    work_off_device(device);
    LOCKED;
    for (struct block **each = &blocks; *each; each = &(*each)->next) {
        struct block *block = *each;
        if (block->start != start || block->page_locked != page_locked) continue;
        *each = block->next;
        if (page_locked) block->device->is.pinned_blocks--;
        else {
            block->device->is.blocks--;
            block->device->is.memory_used -= block->bytes;
        }
        memset(block->start, FREED, block->bytes);
        free(block->start);
        free(block);
        return CUDA_SUCCESS;
    }
    violation("%s of %p, which is not allocated", by, start);
    return CUDA_ERROR_INVALID_VALUE;
}

CUresult cuMemAlloc_v2(CUdeviceptr *address, size_t bytes) { return allocate((char **)address, bytes, false, "cuMemAlloc"); }
CUresult cuMemFree_v2(CUdeviceptr address) { return release((void *)address, false, "cuMemFree"); }
CUresult cuMemAllocHost_v2(void **address, size_t bytes) { return allocate((char **)address, bytes, true, "cuMemAllocHost"); }
CUresult cuMemFreeHost(void *address) { return release(address, true, "cuMemFreeHost"); }

CUresult cuMemHostAlloc(void **address, size_t bytes, unsigned flags)
{
    (void)flags;
    return allocate((char **)address, bytes, true, "cuMemHostAlloc");
}

CUresult cuMemGetInfo_v2(size_t *unused, size_t *total)
{
    LOCKED;
    struct device *device = required_device("cuMemGetInfo");
    if (!device) return CUDA_ERROR_INVALID_CONTEXT;
    *total = device->is.memory_limit;
    *unused = device->is.memory_used < *total ? *total - device->is.memory_used : 0;
    return CUDA_SUCCESS;
}
