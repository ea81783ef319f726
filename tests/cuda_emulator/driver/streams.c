// Streams, their capture as graphs, events, and copies. What is put on a stream is done only when somebody waits for it.
#include "emulator.h"

struct queue { struct work *first, *last; };

// Streams, events and graphs are never freed, only marked, so that a handle used too late is noticed.
struct stream {
    struct stream *next;
    struct device *device;
    bool alive, blocking;
    pthread_mutex_t turn;  // held by the thread that performs the work
    struct queue pending;
    bool capturing, voided;
    CUstreamCaptureMode mode;
    pthread_t captured_by;
    struct queue recorded;
};
static struct stream *streams;

struct graph { bool alive; struct device *device; struct queue work; };
struct event { bool alive; struct device *device; struct stream *stream; int pending; bool recorded; double milliseconds; };

static __thread struct device *working_on;
struct device *working_device(void) { return working_on; }

// ---- queues

static void append(struct queue *queue, struct work work)
{
    struct work *copy = malloc(sizeof *copy);
    *copy = work;
    copy->next = NULL;
    if (queue->last) queue->last->next = copy;
    else queue->first = copy;
    queue->last = copy;
}

static struct work *take_first(struct queue *queue)
{
    LOCKED;
    struct work *first = queue->first;
    if (first) queue->first = first->next;
    if (!queue->first) queue->last = NULL;
    return first;
}

static void append_all(struct queue *queue, const struct queue *others)
{
    for (struct work *work = others->first; work; work = work->next) append(queue, *work);
}

static void clear(struct queue *queue)
{
    for (struct work *work; (work = take_first(queue));) free(work);
}

// ---- working off

static void perform_all(struct stream *stream)
{
    struct device *before = working_on;
    for (struct work *work; (work = take_first(&stream->pending)); free(work)) {
        working_on = work->device;
        work->perform(work);
    }
    working_on = before;
}

static void work_off(struct stream *stream)
{
    pthread_mutex_lock(&stream->turn);
    perform_all(stream);
    pthread_mutex_unlock(&stream->turn);
}

// A stream whose work another thread performs is left to it: that work may call Python, whose lock our caller may hold.
void work_off_device(struct device *device)
{
    for (struct stream *stream = streams; stream; stream = stream->next)
        if (stream->device == device && !pthread_mutex_trylock(&stream->turn)) {
            perform_all(stream);
            pthread_mutex_unlock(&stream->turn);
        }
}

// ---- streams

static struct stream *new_stream(struct device *device, bool blocking)
{
    struct stream *stream = calloc(1, sizeof *stream);
    *stream = (struct stream){.next = streams, .device = device, .alive = true, .blocking = blocking};
    pthread_mutex_init(&stream->turn, NULL);
    streams = stream;
    return stream;
}

static bool is_default(CUstream handle) { return !handle || handle == CU_STREAM_LEGACY || handle == CU_STREAM_PER_THREAD; }

// The stream of a handle on the device of the current context; NULL is a violation and has been counted.
static struct stream *stream_of(CUstream handle, const char *by)
{
    struct device *device = required_device(by);
    if (!device) return NULL;
    if (is_default(handle)) {
        if (!device->default_stream) device->default_stream = new_stream(device, true);
        return device->default_stream;
    }
    struct stream *stream = (struct stream *)handle;
    if (!stream->alive) violation("%s on a stream that was destroyed", by);
    else if (stream->device != device)
        violation("%s on a stream of device %d in the context of device %d", by, stream->device->number, device->number);
    else return stream;
    return NULL;
}

CUresult cuStreamCreate(CUstream *handle, unsigned flags)
{
    LOCKED;
    struct device *device = required_device("cuStreamCreate");
    if (!device) return CUDA_ERROR_INVALID_CONTEXT;
    *handle = (CUstream)new_stream(device, !(flags & CU_STREAM_NON_BLOCKING));
    device->is.streams++;
    return CUDA_SUCCESS;
}

CUresult cuStreamDestroy_v2(CUstream handle)
{
    struct stream *stream = stream_of(handle, "cuStreamDestroy");
    if (!stream) return CUDA_ERROR_INVALID_HANDLE;
    work_off_device(stream->device);
    LOCKED;
    stream->alive = false;
    stream->device->is.streams--;
    return CUDA_SUCCESS;
}

CUresult cuStreamSynchronize(CUstream handle)
{
    struct stream *stream = stream_of(handle, "cuStreamSynchronize");
    if (!stream) return CUDA_ERROR_INVALID_HANDLE;
    CUresult refused = unless_capturing("cuStreamSynchronize");
    if (refused) return refused;
    work_off(stream);
    return CUDA_SUCCESS;
}

CUresult cuCtxSynchronize(void)
{
    struct device *device = required_device("cuCtxSynchronize");
    if (!device) return CUDA_ERROR_INVALID_CONTEXT;
    CUresult refused = unless_capturing("cuCtxSynchronize");
    if (refused) return refused;
    for (struct stream *stream = streams; stream; stream = stream->next)
        if (stream->device == device) work_off(stream);
    return CUDA_SUCCESS;
}

CUresult cuStreamQuery(CUstream handle)
{
    struct stream *stream = stream_of(handle, "cuStreamQuery");
    if (!stream) return CUDA_ERROR_INVALID_HANDLE;
    return stream->pending.first ? CUDA_ERROR_NOT_READY : CUDA_SUCCESS;
}

CUresult enqueue(CUstream handle, struct work work, const char *by)
{
    struct stream *stream;
    {
        LOCKED;
        stream = stream_of(handle, by);
        if (!stream) return CUDA_ERROR_INVALID_CONTEXT;
        if (stream->capturing && stream->voided) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
        for (struct stream *other = streams; other && stream == stream->device->default_stream; other = other->next)
            if (other->capturing && other->blocking && other->device == stream->device) {
                other->voided = true;
                return CUDA_ERROR_STREAM_CAPTURE_IMPLICIT;
            }
        work.device = stream->device;
        append(stream->capturing ? &stream->recorded : &stream->pending, work);
    }
    // The default stream waits for those that were not made to be independent of it, and its work is done at once.
    if (stream == stream->device->default_stream)
        for (struct stream *other = streams; other; other = other->next)
            if (other->device == stream->device && other->blocking && !other->capturing) work_off(other);
    return CUDA_SUCCESS;
}

static void call(const struct work *work) { work->callback.function(work->callback.data); }

CUresult cuLaunchHostFunc(CUstream handle, CUhostFn function, void *data)
{
    return enqueue(handle, (struct work){.perform = call, .callback = {function, data}}, "cuLaunchHostFunc");
}

// ---- capture

CUresult unless_capturing(const char *by)
{
    LOCKED;
    bool refused = false;
    for (struct stream *stream = streams; stream; stream = stream->next) {
        bool forbids = stream->mode == CU_STREAM_CAPTURE_MODE_GLOBAL ||
                       (stream->mode == CU_STREAM_CAPTURE_MODE_THREAD_LOCAL &&
                        pthread_equal(stream->captured_by, pthread_self()));
        if (!stream->capturing || !forbids) continue;
        if (!stream->voided) stream->device->is.voided_captures++;
        stream->voided = refused = true;
        if (getenv("CUDA_EMULATOR_TRACE")) fprintf(stderr, "emulated CUDA driver: %s voids a capture\n", by);
    }
    return refused ? CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED : CUDA_SUCCESS;
}

CUresult cuStreamBeginCapture_v2(CUstream handle, CUstreamCaptureMode mode)
{
    LOCKED;
    struct stream *stream = stream_of(handle, "cuStreamBeginCapture");
    if (!stream) return CUDA_ERROR_INVALID_HANDLE;
    if (stream == stream->device->default_stream) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    if (stream->capturing) return CUDA_ERROR_ILLEGAL_STATE;
    stream->capturing = true;
    stream->voided = false;
    stream->mode = mode;
    stream->captured_by = pthread_self();
    stream->device->is.captures++;
    return CUDA_SUCCESS;
}

CUresult cuStreamEndCapture(CUstream handle, CUgraph *graph)
{
    LOCKED;
    *graph = NULL;
    struct stream *stream = stream_of(handle, "cuStreamEndCapture");
    if (!stream) return CUDA_ERROR_INVALID_HANDLE;
    if (!stream->capturing) return CUDA_ERROR_ILLEGAL_STATE;
    stream->capturing = false;
    if (stream->voided) {
        clear(&stream->recorded);
        return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    }
    struct graph *made = calloc(1, sizeof *made);
    *made = (struct graph){true, stream->device, stream->recorded};
    stream->recorded = (struct queue){0};
    stream->device->is.graphs++;
    *graph = (CUgraph)made;
    return CUDA_SUCCESS;
}

CUresult cuStreamIsCapturing(CUstream handle, CUstreamCaptureStatus *status)
{
    LOCKED;
    struct stream *stream = stream_of(handle, "cuStreamIsCapturing");
    if (!stream) return CUDA_ERROR_INVALID_HANDLE;
    *status = !stream->capturing ? CU_STREAM_CAPTURE_STATUS_NONE
              : stream->voided   ? CU_STREAM_CAPTURE_STATUS_INVALIDATED
                                 : CU_STREAM_CAPTURE_STATUS_ACTIVE;
    return CUDA_SUCCESS;
}

// ---- graphs, and executable graphs, which are copies of them

static struct graph *graph_of(void *handle, const char *by)
{
    struct graph *graph = handle;
    if (graph && graph->alive) return graph;
    violation("%s of a graph that does not exist", by);
    return NULL;
}

static CUresult destroy(void *handle, const char *by)
{
    LOCKED;
    struct graph *graph = graph_of(handle, by);
    if (!graph) return CUDA_ERROR_INVALID_VALUE;
    graph->alive = false;
    graph->device->is.graphs--;
    clear(&graph->work);
    return CUDA_SUCCESS;
}

CUresult cuGraphDestroy(CUgraph graph) { return destroy(graph, "cuGraphDestroy"); }
CUresult cuGraphExecDestroy(CUgraphExec graph) { return destroy(graph, "cuGraphExecDestroy"); }

CUresult cuGraphInstantiateWithFlags(CUgraphExec *executable, CUgraph handle, unsigned long long flags)
{
    (void)flags;
    LOCKED;
    struct graph *graph = graph_of(handle, "cuGraphInstantiate");
    if (!graph) return CUDA_ERROR_INVALID_VALUE;
    struct graph *made = calloc(1, sizeof *made);
    *made = (struct graph){.alive = true, .device = graph->device};
    append_all(&made->work, &graph->work);
    graph->device->is.graphs++;
    *executable = (CUgraphExec)made;
    return CUDA_SUCCESS;
}

CUresult cuGraphLaunch(CUgraphExec handle, CUstream stream_handle)
{
    LOCKED;
    struct graph *graph = graph_of(handle, "cuGraphLaunch");
    struct stream *stream = stream_of(stream_handle, "cuGraphLaunch");
    if (!graph || !stream) return CUDA_ERROR_INVALID_HANDLE;
    if (stream->capturing) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    if (graph->device != stream->device) violation("cuGraphLaunch on another device than was recorded");
    append_all(&stream->pending, &graph->work);
    stream->device->is.graph_launches++;
    return CUDA_SUCCESS;
}

// ---- events

static struct event *event_of(CUevent handle, const char *by)
{
    struct event *event = (struct event *)handle;
    if (event && event->alive) return event;
    violation("%s of an event that does not exist", by);
    return NULL;
}

CUresult cuEventCreate(CUevent *handle, unsigned flags)
{
    (void)flags;
    LOCKED;
    struct device *device = required_device("cuEventCreate");
    if (!device) return CUDA_ERROR_INVALID_CONTEXT;
    struct event *event = calloc(1, sizeof *event);
    *event = (struct event){.alive = true, .device = device};
    device->is.events++;
    *handle = (CUevent)event;
    return CUDA_SUCCESS;
}

CUresult cuEventDestroy_v2(CUevent handle)
{
    LOCKED;
    struct event *event = event_of(handle, "cuEventDestroy");
    if (!event) return CUDA_ERROR_INVALID_HANDLE;
    event->alive = false;
    event->device->is.events--;
    return CUDA_SUCCESS;
}

// A millisecond passes from one event to the next, so that tests know what is measured.
static void note_time(const struct work *work)
{
    LOCKED;
    static double now;
    work->event->milliseconds = ++now;
    work->event->pending--;
}

CUresult cuEventRecord(CUevent handle, CUstream stream_handle)
{
    struct event *event = event_of(handle, "cuEventRecord");
    struct stream *stream = stream_of(stream_handle, "cuEventRecord");
    if (!event || !stream) return CUDA_ERROR_INVALID_HANDLE;
    // In a capture it only orders what follows, and in one stream that is ordered anyway.
    if (stream->capturing) return CUDA_SUCCESS;
    {
        LOCKED;
        event->stream = stream;
        event->recorded = true;
        event->pending++;
    }
    return enqueue(stream_handle, (struct work){.perform = note_time, .event = event}, "cuEventRecord");
}

CUresult cuEventSynchronize(CUevent handle)
{
    struct event *event = event_of(handle, "cuEventSynchronize");
    if (!event) return CUDA_ERROR_INVALID_HANDLE;
    CUresult refused = unless_capturing("cuEventSynchronize");
    if (refused) return refused;
    if (event->pending) work_off(event->stream);
    return CUDA_SUCCESS;
}

CUresult cuEventQuery(CUevent handle)
{
    struct event *event = event_of(handle, "cuEventQuery");
    if (!event) return CUDA_ERROR_INVALID_HANDLE;
    CUresult refused = unless_capturing("cuEventQuery");
    if (refused) return refused;
    return event->pending ? CUDA_ERROR_NOT_READY : CUDA_SUCCESS;
}

CUresult cuEventElapsedTime_v2(float *milliseconds, CUevent first, CUevent second)
{
    struct event *start = event_of(first, "cuEventElapsedTime"), *stop = event_of(second, "cuEventElapsedTime");
    if (!start || !stop || !start->recorded || !stop->recorded) return CUDA_ERROR_INVALID_HANDLE;
    if (start->pending || stop->pending) return CUDA_ERROR_NOT_READY;
    *milliseconds = (float)(stop->milliseconds - start->milliseconds);
    return CUDA_SUCCESS;
}

CUresult cuEventElapsedTime(float *milliseconds, CUevent first, CUevent second)
{
    return cuEventElapsedTime_v2(milliseconds, first, second);
}

static void wait_for(const struct work *work)
{
    if (work->event->pending) work_off(work->event->stream);
}

CUresult cuStreamWaitEvent(CUstream handle, CUevent event_handle, unsigned flags)
{
    (void)flags;
    struct event *event = event_of(event_handle, "cuStreamWaitEvent");
    if (!event) return CUDA_ERROR_INVALID_HANDLE;
    if (!event->recorded || event->stream == (struct stream *)handle) return CUDA_SUCCESS;
    return enqueue(handle, (struct work){.perform = wait_for, .event = event}, "cuStreamWaitEvent");
}

// ---- copies

static void copy_in(const struct work *work)
{
    const struct copy *copy = &work->copy;
    if (!is_device_memory(work->device, (CUdeviceptr)copy->target, copy->bytes, "target of a copy")) return;
    memcpy(copy->target, copy->source, copy->bytes);
    LOCKED;
    work->device->is.bytes_to_device += copy->bytes;
}

static void copy_out(const struct work *work)
{
    const struct copy *copy = &work->copy;
    if (!is_device_memory(work->device, (CUdeviceptr)copy->source, copy->bytes, "source of a copy")) return;
    memcpy(copy->target, copy->source, copy->bytes);
    LOCKED;
    work->device->is.bytes_to_host += copy->bytes;
}

static void copy_page_locked_in(const struct work *work)
{
    if (is_page_locked(work->copy.source, work->copy.bytes, "source of an asynchronous copy")) copy_in(work);
}

static void copy_page_locked_out(const struct work *work)
{
    if (is_page_locked(work->copy.target, work->copy.bytes, "target of an asynchronous copy")) copy_out(work);
}

static void copy_within(const struct work *work)
{
    const struct copy *copy = &work->copy;
    if (is_device_memory(work->device, (CUdeviceptr)copy->source, copy->bytes, "source of a copy") &&
        is_device_memory(work->device, (CUdeviceptr)copy->target, copy->bytes, "target of a copy"))
        memmove(copy->target, copy->source, copy->bytes);
}

static CUresult copy(void (*perform)(const struct work *), void *target, const void *source, size_t bytes, CUstream stream)
{
    return enqueue(stream, (struct work){.perform = perform, .copy = {target, source, bytes}}, "a copy");
}

CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr target, const void *source, size_t bytes, CUstream stream)
{
    return copy(copy_page_locked_in, (void *)target, source, bytes, stream);
}

CUresult cuMemcpyDtoHAsync_v2(void *target, CUdeviceptr source, size_t bytes, CUstream stream)
{
    return copy(copy_page_locked_out, target, (const void *)source, bytes, stream);
}

CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr target, CUdeviceptr source, size_t bytes, CUstream stream)
{
    return copy(copy_within, (void *)target, (const void *)source, bytes, stream);
}

CUresult cuMemcpyHtoD_v2(CUdeviceptr target, const void *source, size_t bytes)
{
    return copy(copy_in, (void *)target, source, bytes, NULL);
}

CUresult cuMemcpyDtoH_v2(void *target, CUdeviceptr source, size_t bytes)
{
    return copy(copy_out, target, (const void *)source, bytes, NULL);
}

CUresult cuMemcpyDtoD_v2(CUdeviceptr target, CUdeviceptr source, size_t bytes)
{
    return copy(copy_within, (void *)target, (const void *)source, bytes, NULL);
}

static void copy_rectangle(const struct work *work)
{
    const CUDA_MEMCPY2D *it = &work->rectangle;
    size_t width = it->WidthInBytes;
    if (it->srcXInBytes + width > it->srcPitch || it->dstXInBytes + width > it->dstPitch)
        violation("a rectangle of %zu bytes a row is copied beyond its pitch", width);
    for (size_t row = 0; row < it->Height; row++) {
        CUdeviceptr source = it->srcDevice + (it->srcY + row) * it->srcPitch + it->srcXInBytes;
        CUdeviceptr target = it->dstDevice + (it->dstY + row) * it->dstPitch + it->dstXInBytes;
        if (!is_device_memory(work->device, source, width, "source of a rectangle") ||
            !is_device_memory(work->device, target, width, "target of a rectangle"))
            return;
        memmove((void *)target, (const void *)source, width);
    }
}

CUresult cuMemcpy2DAsync_v2(const CUDA_MEMCPY2D *rectangle, CUstream stream)
{
    if (rectangle->srcMemoryType != CU_MEMORYTYPE_DEVICE || rectangle->dstMemoryType != CU_MEMORYTYPE_DEVICE) {
        violation("cuMemcpy2DAsync is emulated within device memory only");
        return CUDA_ERROR_NOT_SUPPORTED;
    }
    return enqueue(stream, (struct work){.perform = copy_rectangle, .rectangle = *rectangle}, "cuMemcpy2DAsync");
}

CUresult cuMemcpy2D_v2(const CUDA_MEMCPY2D *rectangle) { return cuMemcpy2DAsync_v2(rectangle, NULL); }
CUresult cuMemcpy2DUnaligned_v2(const CUDA_MEMCPY2D *rectangle) { return cuMemcpy2DAsync_v2(rectangle, NULL); }

static void fill(const struct work *work)
{
    const struct fill *it = &work->fill;
    if (!is_device_memory(work->device, it->target, it->count * (size_t)it->width, "target of a fill")) return;
    for (size_t index = 0; index < it->count; index++)
        memcpy((char *)it->target + index * (size_t)it->width, &it->value, (size_t)it->width);
}

static CUresult fill_with(CUdeviceptr target, unsigned value, size_t count, int width, CUstream stream)
{
    return enqueue(stream, (struct work){.perform = fill, .fill = {target, value, count, width}}, "a fill");
}

CUresult cuMemsetD8Async(CUdeviceptr target, unsigned char value, size_t count, CUstream stream)
{
    return fill_with(target, value, count, 1, stream);
}

CUresult cuMemsetD16Async(CUdeviceptr target, unsigned short value, size_t count, CUstream stream)
{
    return fill_with(target, value, count, 2, stream);
}

CUresult cuMemsetD32Async(CUdeviceptr target, unsigned value, size_t count, CUstream stream)
{
    return fill_with(target, value, count, 4, stream);
}

CUresult cuMemsetD8_v2(CUdeviceptr target, unsigned char value, size_t count) { return fill_with(target, value, count, 1, NULL); }
CUresult cuMemsetD16_v2(CUdeviceptr target, unsigned short value, size_t count) { return fill_with(target, value, count, 2, NULL); }
CUresult cuMemsetD32_v2(CUdeviceptr target, unsigned value, size_t count) { return fill_with(target, value, count, 4, NULL); }
