// Devices, their primary contexts, each thread's stack of contexts, and what the driver says of itself.
//
//     CUDA_EMULATOR_DEVICES=4           how many GPUs there are; 2 by default
//     CUDA_EMULATOR_MODEL=NAME          the name of all, which otherwise are of different models
//     CUDA_EMULATOR_MEMORY_MB=8192,30   memory of each; of the last one also that of all after it
//     CUDA_EMULATOR_VIOLATIONS=FILE     violations are appended here, those of child processes too
#include "emulator.h"
#include <dlfcn.h>
#include <stdarg.h>

#define DEEPEST_STACK 64
#define DEFAULT_DEVICES 2
#define DEFAULT_MEMORY_MB 8192

pthread_mutex_t emulator_lock = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;

static struct device devices[MOST_DEVICES];
static int device_count;
static int visible[MOST_DEVICES], visible_count;
static __thread struct device *stack[DEEPEST_STACK];
static __thread int depth;

static int read_device_count(void)
{
    const char *wanted = getenv("CUDA_EMULATOR_DEVICES");
    int count = wanted ? atoi(wanted) : DEFAULT_DEVICES;
    return count < 0 ? 0 : count > MOST_DEVICES ? MOST_DEVICES : count;
}

static void read_memory_limits(void)
{
    const char *wanted = getenv("CUDA_EMULATOR_MEMORY_MB");
    uint64_t megabytes = DEFAULT_MEMORY_MB;
    for (int number = 0; number < device_count; number++) {
        if (wanted && *wanted) {
            char *rest;
            megabytes = strtoull(wanted, &rest, 10);
            wanted = *rest == ',' ? rest + 1 : rest;
        }
        devices[number].is.memory_limit = megabytes << 20;
    }
}

// As the real driver does: the first number that is no device ends the list.
static void read_visible_devices(void)
{
    const char *wanted = getenv("CUDA_VISIBLE_DEVICES");
    if (!wanted) {
        for (; visible_count < device_count; visible_count++) visible[visible_count] = visible_count;
        return;
    }
    while (visible_count < MOST_DEVICES) {
        char *rest;
        long number = strtol(wanted, &rest, 10);
        if (rest == wanted || number < 0 || number >= device_count) return;
        visible[visible_count++] = (int)number;
        if (*rest != ',') return;
        wanted = rest + 1;
    }
}

__attribute__((constructor)) static void start(void)
{
    device_count = read_device_count();
    for (int number = 0; number < device_count; number++) devices[number].number = number;
    read_memory_limits();
    read_visible_devices();
}

// ---- violations

static uint64_t violations;

void violation(const char *format, ...)
{
    char text[512];
    va_list values;
    va_start(values, format);
    vsnprintf(text, sizeof text, format, values);
    va_end(values);
    __atomic_add_fetch(&violations, 1, __ATOMIC_SEQ_CST);
    fprintf(stderr, "emulated CUDA driver: %s\n", text);
    const char *path = getenv("CUDA_EMULATOR_VIOLATIONS");
    FILE *file = path ? fopen(path, "a") : NULL;
    if (file) {
        fprintf(file, "%s\n", text);
        fclose(file);
    }
}

int not_emulated(const char *name)
{
    violation("%s is not emulated; write it in tests/cuda_emulator/driver", name);
    return CUDA_ERROR_NOT_SUPPORTED;
}

// ---- for tests, through driver.py

#define AS_NAME(name) #name " "
const char *emulator_counter_names(void) { return COUNTERS(AS_NAME); }
void emulator_counters(int number, struct counters *found) { LOCKED; *found = devices[number].is; }
void emulator_set_memory_limit(int number, uint64_t bytes) { LOCKED; devices[number].is.memory_limit = bytes; }
int emulator_context_depth(void) { return depth; }
int emulator_device_count(void) { return device_count; }
uint64_t emulator_violations(void) { return violations; }
void emulator_violation(const char *text) { violation("%s", text); }

// ---- contexts: that of a device is the device itself, since each has only its primary context

static struct device *of_ordinal(CUdevice ordinal)
{
    return ordinal >= 0 && ordinal < visible_count ? &devices[visible[ordinal]] : NULL;
}

static CUdevice ordinal_of(const struct device *device)
{
    CUdevice ordinal = 0;
    while (&devices[visible[ordinal]] != device) ordinal++;
    return ordinal;
}

struct device *current_device(void) { return depth ? stack[depth - 1] : NULL; }

struct device *required_device(const char *by)
{
    struct device *device = current_device();
    if (!device) violation("%s without a current context", by);
    else if (!device->is.primary_references) {
        violation("%s in the context of device %d, which was released", by, device->number);
        return NULL;
    }
    return device;
}

CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice ordinal)
{
    LOCKED;
    struct device *device = of_ordinal(ordinal);
    if (!device) return CUDA_ERROR_INVALID_DEVICE;
    device->is.primary_references++;
    *context = (CUcontext)device;
    return CUDA_SUCCESS;
}

CUresult cuDevicePrimaryCtxRelease_v2(CUdevice ordinal)
{
    LOCKED;
    struct device *device = of_ordinal(ordinal);
    if (!device) return CUDA_ERROR_INVALID_DEVICE;
    if (!device->is.primary_references) return CUDA_ERROR_INVALID_CONTEXT;
    device->is.primary_references--;
    return CUDA_SUCCESS;
}

CUresult cuDevicePrimaryCtxGetState(CUdevice ordinal, unsigned *flags, int *active)
{
    struct device *device = of_ordinal(ordinal);
    if (!device) return CUDA_ERROR_INVALID_DEVICE;
    *flags = 0;
    *active = device->is.primary_references > 0;
    return CUDA_SUCCESS;
}

CUresult cuCtxPushCurrent_v2(CUcontext context)
{
    struct device *device = (struct device *)context;
    if (!device || !device->is.primary_references || depth == DEEPEST_STACK) return CUDA_ERROR_INVALID_CONTEXT;
    stack[depth++] = device;
    return CUDA_SUCCESS;
}

CUresult cuCtxPopCurrent_v2(CUcontext *context)
{
    if (!depth) return CUDA_ERROR_INVALID_CONTEXT;
    depth--;
    if (context) *context = (CUcontext)stack[depth];
    return CUDA_SUCCESS;
}

CUresult cuCtxSetCurrent(CUcontext context)
{
    if (depth) depth--;
    return context ? cuCtxPushCurrent_v2(context) : CUDA_SUCCESS;
}

CUresult cuCtxGetCurrent(CUcontext *context)
{
    *context = (CUcontext)current_device();
    return CUDA_SUCCESS;
}

CUresult cuCtxGetDevice(CUdevice *ordinal)
{
    if (!depth) return CUDA_ERROR_INVALID_CONTEXT;
    *ordinal = ordinal_of(current_device());
    return CUDA_SUCCESS;
}

// A primary context is released with cuDevicePrimaryCtxRelease; what a real driver answers here is not measured.
CUresult cuCtxDetach(CUcontext context) { (void)context; return CUDA_ERROR_INVALID_CONTEXT; }
CUresult cuCtxDestroy_v2(CUcontext context) { (void)context; return CUDA_ERROR_INVALID_CONTEXT; }

CUresult cuCtxGetApiVersion(CUcontext context, unsigned *version)
{
    (void)context;
    *version = 13000;
    return CUDA_SUCCESS;
}

// ---- what the driver says

CUresult cuInit(unsigned flags) { (void)flags; return visible_count ? CUDA_SUCCESS : CUDA_ERROR_NO_DEVICE; }
CUresult cuDriverGetVersion(int *version) { *version = 13000; return CUDA_SUCCESS; }
CUresult cuDeviceGetCount(int *count) { *count = visible_count; return CUDA_SUCCESS; }

CUresult cuDeviceGet(CUdevice *device, int ordinal)
{
    if (!of_ordinal(ordinal)) return CUDA_ERROR_INVALID_DEVICE;
    *device = ordinal;
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetName(char *name, int length, CUdevice ordinal)
{
    struct device *device = of_ordinal(ordinal);
    if (!device) return CUDA_ERROR_INVALID_DEVICE;
    const char *model = getenv("CUDA_EMULATOR_MODEL");
    if (model) snprintf(name, (size_t)length, "%s", model);
    else snprintf(name, (size_t)length, "NVIDIA Emulated GPU %d", device->number);
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetUuid_v2(CUuuid *uuid, CUdevice ordinal)
{
    struct device *device = of_ordinal(ordinal);
    if (!device) return CUDA_ERROR_INVALID_DEVICE;
    memset(uuid, 0, sizeof *uuid);
    uuid->bytes[15] = (char)(device->number + 1);
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetPCIBusId(char *text, int length, CUdevice ordinal)
{
    struct device *device = of_ordinal(ordinal);
    if (!device) return CUDA_ERROR_INVALID_DEVICE;
    snprintf(text, (size_t)length, "0000:%02x:00.0", device->number + 1);
    return CUDA_SUCCESS;
}

CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice ordinal)
{
    struct device *device = of_ordinal(ordinal);
    if (!device) return CUDA_ERROR_INVALID_DEVICE;
    *bytes = device->is.memory_limit;
    return CUDA_SUCCESS;
}

CUresult cuDeviceComputeCapability(int *major, int *minor, CUdevice ordinal)
{
    if (!of_ordinal(ordinal)) return CUDA_ERROR_INVALID_DEVICE;
    *major = 9;
    *minor = 0;
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice ordinal)
{
    if (!of_ordinal(ordinal)) return CUDA_ERROR_INVALID_DEVICE;
    switch (attribute) {
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: *value = 9; break;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR: *value = 0; break;
    case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT: *value = 132; break;
    case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK: *value = 1024; break;
    case CU_DEVICE_ATTRIBUTE_WARP_SIZE: *value = 32; break;
    default: *value = 1;
    }
    return CUDA_SUCCESS;
}

#define ERRORS(ERROR) \
    ERROR(CUDA_SUCCESS, "no error") \
    ERROR(CUDA_ERROR_INVALID_VALUE, "invalid argument") \
    ERROR(CUDA_ERROR_OUT_OF_MEMORY, "out of memory") \
    ERROR(CUDA_ERROR_NO_DEVICE, "no CUDA-capable device is detected") \
    ERROR(CUDA_ERROR_INVALID_DEVICE, "invalid device ordinal") \
    ERROR(CUDA_ERROR_INVALID_IMAGE, "device kernel image is invalid") \
    ERROR(CUDA_ERROR_INVALID_CONTEXT, "invalid device context") \
    ERROR(CUDA_ERROR_INVALID_HANDLE, "invalid resource handle") \
    ERROR(CUDA_ERROR_ILLEGAL_STATE, "the operation cannot be performed in the present state") \
    ERROR(CUDA_ERROR_NOT_FOUND, "named symbol not found") \
    ERROR(CUDA_ERROR_NOT_READY, "device not ready") \
    ERROR(CUDA_ERROR_NOT_SUPPORTED, "operation not supported") \
    ERROR(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "operation not permitted when stream is capturing") \
    ERROR(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, "operation failed due to a previous error during capture") \
    ERROR(CUDA_ERROR_STREAM_CAPTURE_IMPLICIT, "operation would make the legacy stream depend on a capturing blocking stream")

#define AS_TEXT(code, meaning) case code: *text = meaning; return CUDA_SUCCESS;
#define AS_CODE(code, meaning) case code: *text = #code; return CUDA_SUCCESS;

CUresult cuGetErrorString(CUresult error, const char **text)
{
    switch ((int)error) { ERRORS(AS_TEXT) }
    *text = "unknown error";
    return CUDA_SUCCESS;
}

CUresult cuGetErrorName(CUresult error, const char **text)
{
    switch ((int)error) { ERRORS(AS_CODE) }
    *text = "CUDA_ERROR_UNKNOWN";
    return CUDA_SUCCESS;
}

// Newer versions of a function have the endings _v2 and so on; cuda-bindings asks without them.
CUresult cuGetProcAddress_v2(const char *name, void **function, int version, cuuint64_t flags,
                             CUdriverProcAddressQueryResult *found)
{
    (void)version, (void)flags;
    static void *library;
    if (!library) {
        Dl_info here;
        dladdr((void *)cuGetProcAddress_v2, &here);
        library = dlopen(here.dli_fname, RTLD_LAZY | RTLD_NOLOAD);
    }
    char newer[128];
    snprintf(newer, sizeof newer, "%s_v2", name);
    *function = dlsym(library, newer);
    if (!*function) *function = dlsym(library, name);
    if (found) *found = *function ? CU_GET_PROC_ADDRESS_SUCCESS : CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
    return *function ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}

CUresult cuGetProcAddress(const char *name, void **function, int version, cuuint64_t flags)
{
    return cuGetProcAddress_v2(name, function, version, flags, NULL);
}

CUresult cuGetExportTable(const void **table, const CUuuid *id) { (void)table, (void)id; return CUDA_ERROR_NOT_FOUND; }
