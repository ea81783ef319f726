// What the parts of the emulated CUDA driver share.
#pragma once
#define _GNU_SOURCE
#define __CUDA_API_VERSION_INTERNAL  // cuda.h then declares functions under the names that libcuda.so.1 exports
#include <cuda.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST_DEVICES 8

// What tests read of each device, in this order; `driver.py` asks for the names.
#define COUNTERS(COUNTER) \
    COUNTER(memory_used)  /* bytes */ \
    COUNTER(memory_peak) \
    COUNTER(memory_limit) \
    COUNTER(allocations)  /* ever made */ \
    COUNTER(blocks)       /* alive */ \
    COUNTER(pinned_blocks) \
    COUNTER(bytes_to_device) \
    COUNTER(bytes_to_host) \
    COUNTER(primary_references) \
    COUNTER(modules)      /* alive, as are streams, events and graphs */ \
    COUNTER(streams) \
    COUNTER(events) \
    COUNTER(graphs) \
    COUNTER(captures) \
    COUNTER(voided_captures) \
    COUNTER(kernel_launches) \
    COUNTER(graph_launches)

#define AS_FIELD(name) uint64_t name;
struct counters { COUNTERS(AS_FIELD) };

struct stream;
struct device {
    int number;  // of the machine; CUDA_VISIBLE_DEVICES may give it another ordinal
    struct counters is;
    struct stream *default_stream;
};

// ---- one lock for all state; never held while work is performed, for that may call back into Python

extern pthread_mutex_t emulator_lock;
static inline int take_lock(void) { return pthread_mutex_lock(&emulator_lock); }
static inline void drop_lock(const int *unused) { (void)unused; pthread_mutex_unlock(&emulator_lock); }
#define LOCKED __attribute__((cleanup(drop_lock), unused)) int locked = take_lock()

// ---- devices.c

// Counts and tells something that on a real GPU would crash, corrupt memory or be slow. It fails the test.
void violation(const char *format, ...) __attribute__((format(printf, 1, 2)));
// The device of the calling thread's context, or NULL.
struct device *current_device(void);
// As above, but without a context it is a violation.
struct device *required_device(const char *by);

// ---- memory.c

bool is_device_memory(const struct device *device, CUdeviceptr address, size_t bytes, const char *what);
bool is_page_locked(const void *address, size_t bytes, const char *what);

// ---- streams.c

struct copy { char *target; const char *source; size_t bytes; };
struct fill { CUdeviceptr target; unsigned value; size_t count; int width; };
struct launch { const struct kernel *kernel; size_t threads; unsigned char parameters[64]; };
struct callback { CUhostFn function; void *data; };

struct work {
    struct work *next;
    void (*perform)(const struct work *);
    struct device *device;
    union {
        struct copy copy;
        CUDA_MEMCPY2D rectangle;
        struct fill fill;
        struct launch launch;
        struct callback callback;
        struct event *event;
    };
};

// Puts work on a stream, or into the recording of a stream that is captured.
CUresult enqueue(CUstream handle, struct work work, const char *by);
// Voids the captures that forbid an unsafe call of this thread. Returns the error of that call.
CUresult unless_capturing(const char *by);
// The device on which this thread performs work at the moment, or NULL.
struct device *working_device(void);
// Waits for all streams of a device, except those that another thread is waiting for.
void work_off_device(struct device *device);

// ---- kernels.c

struct kernel {
    const char *name;
    const char *parameters;  // P: address, I: unsigned, f: float, as pycuda writes it
    void (*run)(const struct device *device, const unsigned char *parameters, size_t threads);
};
