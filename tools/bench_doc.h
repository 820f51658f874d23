/* The results of csmoe bench as one JSON document, which every output is made from: a list of devices, each with what
 * it is and a list of results.
 *
 *     [{"format": "csmoe bench 1", "device": ..., "driver": ..., "driver_info": ..., "vulkan": "1.3.230",
 *       "cpu_driver": true, "csmoe": "0.1.0", "commit": "v0.1-3-gabc", "date": "2026-01-31 12:00 UTC",
 *       "results": [{"part": "ops", "operator": "softmax", "case": "[4096, 1024]", "pass": "forward", "type": "f32",
 *                    "runs": 50, "ms": 1.5, ...}]}]
 *
 * A result has the figures of enum bench_figure that apply to it. */
#ifndef TOOLS_BENCH_DOC_H
#define TOOLS_BENCH_DOC_H

#include <jansson.h>
#include <stdbool.h>

#include "nn/bench.h"
#include "vk/vk.h"

enum bench_part { BENCH_PEAKS, BENCH_OPS, BENCH_MOE, BENCH_STEP, BENCH_PARTS };
extern const char *const bench_part_names[BENCH_PARTS + 1]; /* NULL-ended */

/* Texts of a result; together they are its identity. */
enum bench_text { BENCH_PART, BENCH_OPERATOR, BENCH_CASE, BENCH_PASS, BENCH_TYPE, BENCH_TEXTS };
extern const char *const bench_text_keys[BENCH_TEXTS];

/* Numbers of a result. The first four are always there. */
enum bench_figure {
    BENCH_RUNS,
    BENCH_MS, /* median */
    BENCH_BEST_MS,
    BENCH_DEVIATION_MS,  /* median distance from the median */
    BENCH_FLOP,          /* arithmetic */
    BENCH_BYTES,         /* read and written at least */
    BENCH_GFLOPS,        /* by the median; of peaks by the best */
    BENCH_GBYTES,
    BENCH_ROOF_PERCENT,  /* of what the roofline allows: the lower of peak arithmetic and peak memory */
    BENCH_DENSE_PERCENT, /* speed, of a dense feed-forward block of equal arithmetic */
    BENCH_TOKENS,        /* per second */
    BENCH_MEMORY_BYTES,  /* of the device, at the highest */
    BENCH_DISPATCHES,
    BENCH_HOST_MS,       /* recording */
    BENCH_DEVICE_MS,     /* sum of all kernels' own times */
    BENCH_FIGURES
};
extern const char *const bench_figure_keys[BENCH_FIGURES];

typedef struct bench_row {
    const char *text[BENCH_TEXTS];
    double figure[BENCH_FIGURES]; /* NAN: does not apply */
} bench_row;

/* A row without figures but those of the timing, if it is not NULL. */
bench_row bench_row_of(enum bench_part part, const char *op, const char *name, const char *pass, const char *type,
                       const nn_timing *t);
/* Sets the row's share of the roofline of this device, whose peaks have been measured. */
void bench_set_roof(bench_row *row, const json_t *device);
/* The row of a result; its texts belong to it. */
bench_row bench_row_read(const json_t *result);
bool bench_same_row(const bench_row *a, const bench_row *b);

/* A device's entry without results; NULL on failure. */
json_t *bench_device_new(const vk_caps *caps);
bool bench_add(json_t *device, const bench_row *row);
/* The result that a row of another device belongs to; NULL where there is none. */
const json_t *bench_find(const json_t *device, const bench_row *row);
/* Keys of the entry's texts, the device's name first. */
enum { BENCH_DEVICE_TEXTS = 7 };
extern const char *const bench_device_keys[BENCH_DEVICE_TEXTS];
/* One of them; NULL where it is missing. */
const char *bench_device_text(const json_t *device, const char *key);
bool bench_is_cpu(const json_t *device);
/* Measured peaks of a device, 0 where it has none: GFLOP/s for operands of that type ("f32", "f16", "bf16"), GB/s. */
double bench_peak_gflops(const json_t *device, const char *type);
double bench_peak_gbytes(const json_t *device);

/* Reads what bench_save() wrote as JSON, checking everything; errors name the file. */
json_t *bench_load(const char *path);

/* Whether results can be written to that path: it ends in .md, .csv, .json or .html. */
bool bench_output_known(const char *path);
/* Writes the document as its path's ending says. One device gives its own tables, several a comparison. */
bool bench_save(const json_t *doc, const char *path);
bool bench_save_json(const json_t *doc, const char *path);

#endif
