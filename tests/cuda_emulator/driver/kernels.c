// Modules and the kernels that are emulated. Another kernel is a struct of its parameters, a function and a line of the
// table; the parameters are aligned as CUDA aligns them, which is as C does.
#include "emulator.h"

struct as_mask {
    CUdeviceptr source, target;
    unsigned count;
    float threshold, lowest, highest;
};

static void as_mask(const struct device *device, const unsigned char *parameters, size_t threads)
{
    struct as_mask it;
    memcpy(&it, parameters, sizeof it);
    if (threads < it.count) violation("as_mask of %u pixels has %zu threads", it.count, threads);
    if (!is_device_memory(device, it.source, sizeof(float) * it.count, "source of as_mask") ||
        !is_device_memory(device, it.target, it.count, "target of as_mask"))
        return;
    const float *source = (const float *)it.source;
    unsigned char *target = (unsigned char *)it.target;
    for (unsigned index = 0; index < it.count; index++) {
        bool probability = source[index] >= it.lowest && source[index] <= it.highest;
        target[index] = probability ? source[index] >= it.threshold : 2;
    }
}

static const struct kernel KERNELS[] = {
    {"as_mask", "PPIfff", as_mask},
};

static size_t size_of(char parameter) { return parameter == 'P' ? 8 : 4; }

static size_t aligned(size_t offset, char parameter)
{
    size_t size = size_of(parameter);
    return (offset + size - 1) / size * size;
}

static size_t bytes_of(const char *parameters)
{
    size_t bytes = 0;
    for (; *parameters; parameters++) bytes = aligned(bytes, *parameters) + size_of(*parameters);
    return bytes;
}

// ---- modules

struct module { bool alive; struct device *device; char *image; };

CUresult cuModuleLoadDataEx(CUmodule *handle, const void *image, unsigned count, CUjit_option *options, void **values)
{
    (void)count, (void)options, (void)values;
    CUresult refused = unless_capturing("cuModuleLoadData");
    if (refused) return refused;
    LOCKED;
    struct device *device = required_device("cuModuleLoadData");
    if (!device) return CUDA_ERROR_INVALID_CONTEXT;
    if (!strstr(image, ".version") || !strstr(image, ".target")) return CUDA_ERROR_INVALID_IMAGE;
    struct module *module = malloc(sizeof *module);
    *module = (struct module){true, device, strdup(image)};
    device->is.modules++;
    *handle = (CUmodule)module;
    return CUDA_SUCCESS;
}

CUresult cuModuleLoadData(CUmodule *handle, const void *image) { return cuModuleLoadDataEx(handle, image, 0, NULL, NULL); }

CUresult cuModuleUnload(CUmodule handle)
{
    LOCKED;
    struct module *module = (struct module *)handle;
    if (!required_device("cuModuleUnload")) return CUDA_ERROR_INVALID_CONTEXT;
    if (!module->alive) {
        violation("cuModuleUnload of a module that was unloaded");
        return CUDA_ERROR_INVALID_HANDLE;
    }
    module->alive = false;
    module->device->is.modules--;
    return CUDA_SUCCESS;
}

CUresult cuModuleGetFunction(CUfunction *function, CUmodule handle, const char *name)
{
    const struct module *module = (const struct module *)handle;
    char entry[128];
    snprintf(entry, sizeof entry, ".entry %s", name);
    if (!strstr(module->image, entry)) return CUDA_ERROR_NOT_FOUND;
    for (size_t index = 0; index < sizeof KERNELS / sizeof *KERNELS; index++)
        if (!strcmp(KERNELS[index].name, name)) {
            *function = (CUfunction)&KERNELS[index];
            return CUDA_SUCCESS;
        }
    violation("kernel %s is not emulated; write it in tests/cuda_emulator/driver/kernels.c", name);
    return CUDA_ERROR_NOT_FOUND;
}

// ---- launches

static void launch(const struct work *work)
{
    work->launch.kernel->run(work->device, work->launch.parameters, work->launch.threads);
}

// Copies the parameters that pycuda packed into one buffer.
static bool unpack_buffer(struct launch *launch, void **extra)
{
    const void *buffer = NULL;
    size_t bytes = 0;
    for (; *extra != CU_LAUNCH_PARAM_END; extra += 2)
        if (*extra == CU_LAUNCH_PARAM_BUFFER_POINTER) buffer = extra[1];
        else if (*extra == CU_LAUNCH_PARAM_BUFFER_SIZE) bytes = *(const size_t *)extra[1];
    size_t wanted = bytes_of(launch->kernel->parameters);
    if (buffer && bytes == wanted) memcpy(launch->parameters, buffer, bytes);
    else violation("kernel %s takes %zu bytes of parameters, got %zu", launch->kernel->name, wanted, bytes);
    return buffer && bytes == wanted;
}

static void unpack_each(struct launch *launch, void **values)
{
    size_t offset = 0;
    for (const char *parameter = launch->kernel->parameters; *parameter; parameter++, values++) {
        offset = aligned(offset, *parameter);
        memcpy(launch->parameters + offset, *values, size_of(*parameter));
        offset += size_of(*parameter);
    }
}

CUresult cuLaunchKernel(CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                        unsigned block_y, unsigned block_z, unsigned shared, CUstream stream, void **values, void **extra)
{
    (void)shared;
    struct work work = {.perform = launch, .launch = {.kernel = (const struct kernel *)function}};
    size_t block = (size_t)block_x * block_y * block_z;
    if (!block || block > 1024 || !grid_x || !grid_y || !grid_z) return CUDA_ERROR_INVALID_VALUE;
    work.launch.threads = block * grid_x * grid_y * grid_z;
    if (values) unpack_each(&work.launch, values);
    else if (!extra || !unpack_buffer(&work.launch, extra)) return CUDA_ERROR_INVALID_VALUE;
    struct device *device = current_device();
    if (device) __atomic_add_fetch(&device->is.kernel_launches, 1, __ATOMIC_SEQ_CST);
    return enqueue(stream, work, "a kernel");
}

CUresult cuFuncGetAttribute(int *value, CUfunction_attribute attribute, CUfunction function)
{
    (void)attribute, (void)function;
    *value = 0;
    return CUDA_SUCCESS;
}

CUresult cuFuncSetBlockShape(CUfunction function, int x, int y, int z) { (void)function, (void)x, (void)y, (void)z; return CUDA_SUCCESS; }
CUresult cuFuncSetSharedSize(CUfunction function, unsigned bytes) { (void)function, (void)bytes; return CUDA_SUCCESS; }
