#include "tools/bench_doc.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/error.h"
#include "base/file.h"
#include "commit.h"

static const char FORMAT[] = "csmoe bench 1";
static const size_t MAX_FILE = 64 << 20;

const char *const bench_part_names[] = {"peaks", "ops", "moe", "step", NULL};
const char *const bench_device_keys[] = {"device", "driver", "driver_info", "vulkan", "csmoe", "commit", "date"};
const char *const bench_text_keys[] = {"part", "operator", "case", "pass", "type"};
const char *const bench_figure_keys[] = {
    "runs",   "ms",     "best_ms",      "deviation_ms",  "flop",
    "bytes",  "gflops", "gbytes",       "roof_percent",  "dense_percent",
    "tokens_per_second", "memory_bytes", "dispatches",   "host_ms", "device_ms",
};

/* ---- rows -------------------------------------------------------------------------------------------------------- */

static double rate(double work, double ns)
{
    return work > 0 && ns > 0 ? work / ns : NAN;
}

bench_row bench_row_of(enum bench_part part, const char *op, const char *name, const char *pass, const char *type,
                       const nn_timing *t)
{
    bench_row row = {.text = {bench_part_names[part], op, name, pass, type}};
    for (int i = 0; i < BENCH_FIGURES; i++)
        row.figure[i] = NAN;
    if (!t)
        return row;
    const double ns = part == BENCH_PEAKS ? t->best : t->median;
    row.figure[BENCH_RUNS] = t->runs;
    row.figure[BENCH_MS] = t->median / 1e6;
    row.figure[BENCH_BEST_MS] = t->best / 1e6;
    row.figure[BENCH_DEVIATION_MS] = t->deviation / 1e6;
    row.figure[BENCH_FLOP] = t->flops > 0 ? t->flops : NAN;
    row.figure[BENCH_BYTES] = t->bytes > 0 ? t->bytes : NAN;
    row.figure[BENCH_GFLOPS] = rate(t->flops, ns);
    row.figure[BENCH_GBYTES] = rate(t->bytes, ns);
    return row;
}

void bench_set_roof(bench_row *row, const json_t *device)
{
    const double flops = bench_peak_gflops(device, row->text[BENCH_TYPE]), bytes = bench_peak_gbytes(device);
    const double *f = row->figure;
    double least = 0; /* milliseconds */
    if (f[BENCH_FLOP] > 0 && flops > 0)
        least = f[BENCH_FLOP] / flops / 1e6;
    if (f[BENCH_BYTES] > 0 && bytes > 0)
        least = fmax(least, f[BENCH_BYTES] / bytes / 1e6);
    if (least > 0 && f[BENCH_MS] > 0)
        row->figure[BENCH_ROOF_PERCENT] = 100 * least / f[BENCH_MS];
}

bench_row bench_row_read(const json_t *result)
{
    bench_row row;
    for (int i = 0; i < BENCH_TEXTS; i++)
        row.text[i] = json_string_value(json_object_get(result, bench_text_keys[i]));
    for (int i = 0; i < BENCH_FIGURES; i++) {
        const json_t *value = json_object_get(result, bench_figure_keys[i]);
        row.figure[i] = json_is_number(value) ? json_number_value(value) : NAN;
    }
    return row;
}

bool bench_same_row(const bench_row *a, const bench_row *b)
{
    for (int i = 0; i < BENCH_TEXTS; i++)
        if (strcmp(a->text[i], b->text[i]))
            return false;
    return true;
}

/* ---- devices ----------------------------------------------------------------------------------------------------- */

json_t *bench_device_new(const vk_caps *caps)
{
    char api[32], date[32] = "";
    time_t now = time(NULL);
    struct tm utc;
    snprintf(api, sizeof api, "%u.%u.%u", caps->api_version >> 22, caps->api_version >> 12 & 0x3ff,
             caps->api_version & 0xfff);
    if (gmtime_r(&now, &utc))
        strftime(date, sizeof date, "%Y-%m-%d %H:%M UTC", &utc);
    json_t *device = json_pack("{s:s, s:s, s:s, s:s, s:s, s:b, s:s, s:s, s:s, s:[]}", "format", FORMAT, "device",
                               caps->name, "driver", caps->driver, "driver_info", caps->driver_info, "vulkan", api,
                               "cpu_driver", caps->type == VK_TYPE_CPU, "csmoe", CSMOE_VERSION, "commit", CSMOE_COMMIT,
                               "date", date, "results");
    return device ? device : (cs_fail("benchmark: out of memory for the results"), NULL);
}

bool bench_add(json_t *device, const bench_row *row)
{
    json_t *result = json_object();
    bool ok = result;
    for (int i = 0; ok && i < BENCH_TEXTS; i++)
        ok = json_object_set_new(result, bench_text_keys[i], json_string(row->text[i])) == 0;
    for (int i = 0; ok && i < BENCH_FIGURES; i++)
        if (isfinite(row->figure[i]))
            ok = json_object_set_new(result, bench_figure_keys[i], json_real(row->figure[i])) == 0;
    ok = ok && json_array_append(json_object_get(device, "results"), result) == 0;
    json_decref(result);
    return ok || cs_fail("benchmark: out of memory for the results");
}

const json_t *bench_find(const json_t *device, const bench_row *row)
{
    size_t i;
    const json_t *result;
    json_array_foreach(json_object_get(device, "results"), i, result)
    {
        const bench_row other = bench_row_read(result);
        if (bench_same_row(row, &other))
            return result;
    }
    return NULL;
}

const char *bench_device_text(const json_t *device, const char *key)
{
    return json_string_value(json_object_get(device, key));
}

bool bench_is_cpu(const json_t *device)
{
    return json_is_true(json_object_get(device, "cpu_driver"));
}

static double peak(const json_t *device, enum nn_peak kind, enum bench_figure figure)
{
    size_t i;
    const json_t *result;
    json_array_foreach(json_object_get(device, "results"), i, result)
    {
        const bench_row row = bench_row_read(result);
        if (!strcmp(row.text[BENCH_PART], bench_part_names[BENCH_PEAKS]) &&
            !strcmp(row.text[BENCH_CASE], nn_peak_names[kind]) && row.figure[figure] > 0)
            return row.figure[figure];
    }
    return 0;
}

/* Sums are f32, whatever the operands, unless the device multiplies matrices of that type. */
double bench_peak_gflops(const json_t *device, const char *type)
{
    double matrix = 0;
    if (!strcmp(type, "f16"))
        matrix = peak(device, NN_PEAK_MATRIX_F16, BENCH_GFLOPS);
    else if (!strcmp(type, "bf16"))
        matrix = peak(device, NN_PEAK_MATRIX_BF16, BENCH_GFLOPS);
    return fmax(matrix, peak(device, NN_PEAK_F32, BENCH_GFLOPS));
}

double bench_peak_gbytes(const json_t *device)
{
    return fmax(peak(device, NN_PEAK_READ, BENCH_GBYTES),
                fmax(peak(device, NN_PEAK_WRITE, BENCH_GBYTES), peak(device, NN_PEAK_COPY, BENCH_GBYTES)));
}

/* ---- reading ----------------------------------------------------------------------------------------------------- */

static bool is_part(const char *name)
{
    for (int i = 0; i < BENCH_PARTS; i++)
        if (!strcmp(name, bench_part_names[i]))
            return true;
    return false;
}

/* Says what is missing in one result, NULL where nothing is. */
static const char *fault_of_result(const json_t *result)
{
    for (int i = 0; i < BENCH_TEXTS; i++)
        if (!json_is_string(json_object_get(result, bench_text_keys[i])))
            return bench_text_keys[i];
    for (int i = 0; i < BENCH_FIGURES; i++) {
        const json_t *value = json_object_get(result, bench_figure_keys[i]);
        if (i <= BENCH_DEVIATION_MS || value ? !json_is_number(value) : false)
            return bench_figure_keys[i];
    }
    return is_part(json_string_value(json_object_get(result, "part"))) ? NULL : "part";
}

static bool check_device(const char *path, size_t number, const json_t *device)
{
    const char *format = bench_device_text(device, "format");
    if (!format || strcmp(format, FORMAT))
        return cs_fail("%s: not results of csmoe bench: entry %zu has no \"format\": \"%s\"", path, number, FORMAT);
    for (int i = 0; i < BENCH_DEVICE_TEXTS; i++)
        if (!bench_device_text(device, bench_device_keys[i]))
            return cs_fail("%s: damaged: entry %zu has no text '%s'", path, number, bench_device_keys[i]);
    const json_t *results = json_object_get(device, "results"), *result;
    if (!json_is_array(results) || !json_is_boolean(json_object_get(device, "cpu_driver")))
        return cs_fail("%s: damaged: entry %zu lacks 'results' or 'cpu_driver'", path, number);
    size_t i;
    json_array_foreach(results, i, result)
    {
        const char *fault = fault_of_result(result);
        if (fault)
            return cs_fail("%s: damaged: entry %zu, result %zu has no usable '%s'", path, number, i + 1, fault);
    }
    return true;
}

static bool check_document(const char *path, const json_t *doc)
{
    size_t i;
    const json_t *device;
    if (!json_is_array(doc) || !json_array_size(doc))
        return cs_fail("%s: not results of csmoe bench: a list of devices was expected", path);
    json_array_foreach(doc, i, device)
        if (!check_device(path, i + 1, device))
            return false;
    return true;
}

json_t *bench_load(const char *path)
{
    size_t size;
    char *text = cs_read_file(path, MAX_FILE, &size);
    if (!text)
        return NULL;
    json_error_t error;
    json_t *doc = json_loadb(text, size, JSON_REJECT_DUPLICATES, &error);
    free(text);
    if (!doc)
        cs_fail("%s:%d:%d: %s", path, error.line, error.column, error.text);
    else if (!check_document(path, doc)) {
        json_decref(doc);
        doc = NULL;
    }
    return doc;
}
