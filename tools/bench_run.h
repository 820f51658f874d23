/* What csmoe bench runs on a device. */
#ifndef TOOLS_BENCH_RUN_H
#define TOOLS_BENCH_RUN_H

#include "tools/bench_doc.h"

enum { BENCH_SHAPES = 32 };

typedef struct bench_job {
    bool part[BENCH_PARTS];
    bool quick;
    const char *op; /* this operator only, "gemm": the products; NULL = all */
    /* Instead of the usual ones; counts of 0: the usual ones. */
    struct {
        uint32_t size[3];
    } product[BENCH_SHAPES];
    struct {
        int size[6];
    } layer[BENCH_SHAPES];
    size_t products, layers;
    int batch; /* samples of a training step; 0 = the usual ones */
} bench_job;

/* Opens the device, runs the job, printing as it goes, and appends the device's entry to `doc`. */
bool bench_run(const char *selector, const bench_job *job, json_t *doc);

#endif
