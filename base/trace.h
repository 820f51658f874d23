/* What happened when: spans in rows, for a viewer (ui.perfetto.dev, chrome://tracing). One trace a process; from any
 * thread. Everything costs one look at a flag while there is no trace. */
#ifndef BASE_TRACE_H
#define BASE_TRACE_H

#include <stdbool.h>
#include <stdint.h>

enum { CS_TRACE_ARGS = 2 };

/* The thread that records, the threads that prepare its input, the device. */
enum cs_trace_row { CS_TRACE_HOST, CS_TRACE_LOADER, CS_TRACE_DEVICE, CS_TRACE_ROWS };

/* Spans of one row nest or lie side by side. */
typedef struct cs_trace_span {
    enum cs_trace_row row;
    const char *name;    /* copied */
    const char *kind;    /* a word to filter by; borrowed for good */
    uint64_t begin, end; /* nanoseconds of cs_trace_now()'s clock */
    struct {
        const char *name; /* NULL: no more; borrowed for good */
        double value;
    } args[CS_TRACE_ARGS];
} cs_trace_span;

/* Starts collecting; what an earlier trace has left is dropped. */
void cs_trace_start(void);
bool cs_trace_on(void);
/* Nanoseconds of CLOCK_MONOTONIC; 0 while there is no trace. */
uint64_t cs_trace_now(void);
/* Nothing while there is no trace. */
void cs_trace_add(const cs_trace_span *span);
/* A span of that row from `begin` (of cs_trace_now()) until now; nothing if it began without a trace. */
void cs_trace_end(enum cs_trace_row row, const char *name, uint64_t begin);
/* Writes the spans collected (Trace Event Format, JSON) and stops. */
bool cs_trace_write(const char *path);

#endif
