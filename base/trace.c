#include "base/trace.h"

#include <jansson.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"

static struct {
    atomic_bool on;
    pthread_mutex_t lock; /* guards what follows */
    cs_trace_span *spans; /* with names of their own */
    size_t count, capacity;
    bool incomplete; /* a span found no memory */
} trace = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void forget(void)
{
    for (size_t i = 0; i < trace.count; i++)
        free((char *)trace.spans[i].name);
    free(trace.spans);
    trace.spans = NULL;
    trace.count = trace.capacity = 0;
    trace.incomplete = false;
}

void cs_trace_start(void)
{
    pthread_mutex_lock(&trace.lock);
    forget();
    pthread_mutex_unlock(&trace.lock);
    atomic_store(&trace.on, true);
}

bool cs_trace_on(void)
{
    return atomic_load_explicit(&trace.on, memory_order_relaxed);
}

uint64_t cs_trace_now(void)
{
    struct timespec t;
    if (!cs_trace_on())
        return 0;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

void cs_trace_add(const cs_trace_span *span)
{
    if (!cs_trace_on())
        return;
    char *name = cs_strdup(span->name);
    pthread_mutex_lock(&trace.lock);
    if (name && cs_grow(&trace.spans, &trace.capacity, trace.count + 1, sizeof *trace.spans, "the trace")) {
        trace.spans[trace.count] = *span;
        trace.spans[trace.count++].name = name;
    } else {
        trace.incomplete = true;
        free(name);
    }
    pthread_mutex_unlock(&trace.lock);
}

void cs_trace_end(enum cs_trace_row row, const char *name, uint64_t begin)
{
    if (begin && cs_trace_on())
        cs_trace_add(&(cs_trace_span){row, name, "host", begin, cs_trace_now(), {{0}}});
}

/* ---- writing ----------------------------------------------------------------------------------------------------- */

static json_t *row_json(enum cs_trace_row row)
{
    static const char *const names[CS_TRACE_ROWS] = {"host", "loader", "device"};
    return json_pack("{s:s, s:s, s:i, s:i, s:{s:s}}", "ph", "M", "name", "thread_name", "pid", 1, "tid", (int)row + 1,
                     "args", "name", names[row]);
}

static json_t *span_json(const cs_trace_span *s, uint64_t origin)
{
    json_t *args = json_object();
    for (int i = 0; i < CS_TRACE_ARGS && s->args[i].name; i++)
        json_object_set_new(args, s->args[i].name, json_real(s->args[i].value));
    return json_pack("{s:s, s:s, s:s, s:i, s:i, s:f, s:f, s:o}", "ph", "X", "name", s->name, "cat", s->kind, "pid", 1,
                     "tid", (int)s->row + 1, "ts", (double)(s->begin - origin) / 1e3, "dur",
                     (double)(s->end - s->begin) / 1e3, "args", args);
}

/* Times are microseconds since the first span. */
static json_t *trace_json(void)
{
    json_t *list = json_array();
    uint64_t origin = UINT64_MAX;
    for (size_t i = 0; i < trace.count; i++)
        origin = trace.spans[i].begin < origin ? trace.spans[i].begin : origin;
    bool ok = true;
    for (int row = 0; row < CS_TRACE_ROWS; row++)
        ok = json_array_append_new(list, row_json(row)) == 0 && ok;
    for (size_t i = 0; i < trace.count; i++)
        ok = json_array_append_new(list, span_json(&trace.spans[i], origin)) == 0 && ok;
    json_t *root = json_pack("{s:s, s:o}", "displayTimeUnit", "ms", "traceEvents", list);
    if (ok && root && !trace.incomplete)
        return root;
    json_decref(root);
    return cs_fail("out of memory for the trace"), NULL;
}

static bool write_json(const char *path, const json_t *root)
{
    cs_writer *w = cs_writer_open(path);
    if (!w)
        return false;
    if (json_dumpf(root, cs_writer_stream(w), JSON_COMPACT) == 0)
        return cs_writer_commit(w);
    cs_writer_abort(w);
    return cs_fail("%s: cannot write", path);
}

bool cs_trace_write(const char *path)
{
    atomic_store(&trace.on, false);
    pthread_mutex_lock(&trace.lock);
    json_t *root = trace_json();
    forget();
    pthread_mutex_unlock(&trace.lock);
    bool ok = root && write_json(path, root);
    json_decref(root);
    return ok;
}
