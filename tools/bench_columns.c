/* What a table of each part shows. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "tools/bench_report.h"
#include "tools/options.h"

const char bench_cpu_warning[] = "CPU DRIVER: this is no GPU; these figures say nothing about any graphics card";
const char *const bench_part_titles[BENCH_PARTS] = {
    "Measured peaks of the device (the best run)",
    "Operators (median of device time; of roof: share of what the measured peaks allow)",
    "Layer, forward and backward (wall-clock time; of dense: speed beside a dense block of equal arithmetic)",
    "Training steps (wall-clock time; device: sum of all kernels)",
};

#define TEXT(heading, width, which) {heading, -(width), which, -1, 0, 0, ""}
#define FIGURE(heading, width, which, digits, scale, unit) {heading, width, -1, which, digits, scale, unit}
#define MIB (1.0 / (1 << 20))

static const bench_column peak_columns[] = {
    TEXT("peak", 24, BENCH_CASE),
    TEXT("type", 5, BENCH_TYPE),
    FIGURE("runs", 5, BENCH_RUNS, 0, 1, ""),
    FIGURE("ms", 10, BENCH_MS, 3, 1, ""),
    FIGURE("best ms", 10, BENCH_BEST_MS, 3, 1, ""),
    FIGURE("+- ms", 9, BENCH_DEVIATION_MS, 3, 1, ""),
    FIGURE("GFLOP/s", 10, BENCH_GFLOPS, 1, 1, ""),
    FIGURE("GB/s", 9, BENCH_GBYTES, 1, 1, ""),
};

static const bench_column op_columns[] = {
    TEXT("operator", 20, BENCH_OPERATOR),
    TEXT("case", 32, BENCH_CASE),
    TEXT("pass", 8, BENCH_PASS),
    TEXT("type", 5, BENCH_TYPE),
    FIGURE("runs", 5, BENCH_RUNS, 0, 1, ""),
    FIGURE("ms", 10, BENCH_MS, 3, 1, ""),
    FIGURE("+- ms", 9, BENCH_DEVIATION_MS, 3, 1, ""),
    FIGURE("GFLOP/s", 10, BENCH_GFLOPS, 2, 1, ""),
    FIGURE("GB/s", 9, BENCH_GBYTES, 2, 1, ""),
    FIGURE("of roof", 8, BENCH_ROOF_PERCENT, 1, 1, "%"),
};

static const bench_column moe_columns[] = {
    TEXT("layer", 22, BENCH_OPERATOR),
    TEXT("B,N,D,H,E,K", 24, BENCH_CASE),
    TEXT("type", 5, BENCH_TYPE),
    FIGURE("runs", 5, BENCH_RUNS, 0, 1, ""),
    FIGURE("ms", 10, BENCH_MS, 2, 1, ""),
    FIGURE("+- ms", 9, BENCH_DEVIATION_MS, 2, 1, ""),
    FIGURE("GFLOP/s", 10, BENCH_GFLOPS, 2, 1, ""),
    FIGURE("of dense", 9, BENCH_DENSE_PERCENT, 1, 1, "%"),
    FIGURE("MiB", 9, BENCH_MEMORY_BYTES, 1, MIB, ""),
    FIGURE("dispatches", 10, BENCH_DISPATCHES, 0, 1, ""),
};

static const bench_column step_columns[] = {
    TEXT("model", 22, BENCH_OPERATOR),
    TEXT("step", 12, BENCH_PASS),
    TEXT("batch", 28, BENCH_CASE),
    TEXT("type", 5, BENCH_TYPE),
    FIGURE("runs", 5, BENCH_RUNS, 0, 1, ""),
    FIGURE("ms", 10, BENCH_MS, 1, 1, ""),
    FIGURE("+- ms", 8, BENCH_DEVIATION_MS, 1, 1, ""),
    FIGURE("tokens/s", 10, BENCH_TOKENS, 0, 1, ""),
    FIGURE("host ms", 8, BENCH_HOST_MS, 2, 1, ""),
    FIGURE("device ms", 10, BENCH_DEVICE_MS, 1, 1, ""),
    FIGURE("dispatches", 10, BENCH_DISPATCHES, 0, 1, ""),
    FIGURE("MiB", 8, BENCH_MEMORY_BYTES, 1, MIB, ""),
};

const bench_column *bench_columns(enum bench_part part, size_t *count)
{
    static const struct {
        const bench_column *columns;
        size_t count;
    } tables[BENCH_PARTS] = {
        {peak_columns, CS_COUNT(peak_columns)},
        {op_columns, CS_COUNT(op_columns)},
        {moe_columns, CS_COUNT(moe_columns)},
        {step_columns, CS_COUNT(step_columns)},
    };
    *count = tables[part].count;
    return tables[part].columns;
}

const char *bench_cell(const bench_column *c, const bench_row *row, char text[BENCH_CELL])
{
    if (c->text >= 0)
        return row->text[c->text];
    if (isfinite(row->figure[c->figure]))
        snprintf(text, BENCH_CELL, "%.*f%s", c->digits, row->figure[c->figure] * c->scale, c->unit);
    else
        *text = '\0';
    return text;
}

enum bench_part bench_part_of(const bench_row *row)
{
    int part = 0;
    while (part < BENCH_PARTS - 1 && strcmp(row->text[BENCH_PART], bench_part_names[part]))
        part++;
    return (enum bench_part)part;
}

enum bench_figure bench_main_figure(const bench_row *row)
{
    if (bench_part_of(row) != BENCH_PEAKS)
        return BENCH_MS;
    return isfinite(row->figure[BENCH_GFLOPS]) ? BENCH_GFLOPS : BENCH_GBYTES;
}

const char *bench_row_name(const bench_row *row, char text[BENCH_NAME])
{
    size_t at = 0;
    *text = '\0';
    for (int i = BENCH_OPERATOR; i < BENCH_TEXTS && at < BENCH_NAME; i++)
        if (*row->text[i])
            at += (size_t)snprintf(text + at, BENCH_NAME - at, "%s%s", at ? " " : "", row->text[i]);
    return text;
}

/* ---- several devices --------------------------------------------------------------------------------------------- */

const char *bench_device_name(const json_t *device, char text[BENCH_NAME])
{
    snprintf(text, BENCH_NAME, "%s, %s", bench_device_text(device, "device"), bench_device_text(device, "driver_info"));
    return text;
}

const char *bench_compared(const json_t *doc, size_t device, const bench_row *row, char text[BENCH_CELL])
{
    const json_t *found = bench_find(json_array_get(doc, device), row), *base = bench_find(json_array_get(doc, 0), row);
    const enum bench_figure figure = bench_main_figure(row);
    *text = '\0';
    if (!found)
        return text;
    const double value = bench_row_read(found).figure[figure];
    int at = snprintf(text, BENCH_CELL, "%.3f %s", value,
                      figure == BENCH_MS ? "ms" : figure == BENCH_GFLOPS ? "GFLOP/s" : "GB/s");
    if (device && base) {
        const double first = bench_row_read(base).figure[figure];
        snprintf(text + at, BENCH_CELL - (size_t)at, " (%.2fx)", figure == BENCH_MS ? first / value : value / first);
    }
    return text;
}

static bool has_row(const bench_row *rows, size_t count, const bench_row *row)
{
    for (size_t i = 0; i < count; i++)
        if (bench_same_row(&rows[i], row))
            return true;
    return false;
}

bench_row *bench_all_rows(const json_t *doc, size_t *count)
{
    size_t room = 1, at, i;
    const json_t *device, *result;
    json_array_foreach(doc, at, device)
        room += json_array_size(json_object_get(device, "results"));
    bench_row *rows = cs_alloc(room, sizeof *rows, "the results");
    *count = 0;
    for (int part = 0; rows && part < BENCH_PARTS; part++)
        json_array_foreach(doc, at, device)
            json_array_foreach(json_object_get(device, "results"), i, result)
            {
                const bench_row row = bench_row_read(result);
                if ((int)bench_part_of(&row) == part && !has_row(rows, *count, &row))
                    rows[(*count)++] = row;
            }
    return rows;
}
