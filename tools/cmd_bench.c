/* csmoe bench: how fast the kernels run on a device. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "nn/bench.h"
#include "tools/commands.h"
#include "tools/options.h"

static const char *device, *op_name, *json_path;

static const cs_option options[] = {
    {"device", CS_OPT_STRING, &device, .arg = "N|all",
     .doc = "device: index, part of the name or UUID; all: one after the other"},
    {"op", CS_OPT_STRING, &op_name, .arg = "NAME", .doc = "one operator only; gemm: the plain matrix products"},
    {"json", CS_OPT_STRING, &json_path, .arg = "FILE", .doc = "write the results as JSON too"},
};
static const cs_syntax syntax = {
    .name = "bench",
    .about = "Times the matrix products in their three layouts and every operator, forward and backward, by the "
             "device's own "
             "clock. Median of several runs after a first one; the deviation is the median distance from it.",
    .options = options,
    .option_count = CS_COUNT(options),
};

/* ---- one device -------------------------------------------------------------------------------------------------- */

static void print_heading(const vk_caps *caps)
{
    printf("%s, %s %s\n", caps->name, caps->driver, caps->driver_info);
    if (caps->type == VK_TYPE_CPU)
        printf("CPU driver: these are not a GPU's figures\n");
    printf("%-16s %-32s %-8s %5s %10s %10s %9s %9s %8s\n", "operator", "case", "pass", "runs", "ms", "best ms", "+-",
           "GFLOP/s", "GB/s");
}

/* Prints one row and appends it to `results`. */
static bool report(json_t *results, const char *op, const char *name, const char *pass, const nn_timing *t)
{
    double ns = t->median > 0 ? t->median : HUGE_VAL; /* no rate without a time */
    printf("%-16s %-32s %-8s %5d %10.3f %10.3f %8.1f%% %9.2f %8.2f\n", op, name, pass, t->runs, t->median / 1e6,
           t->best / 1e6, 100 * t->deviation / ns, t->flops / ns, t->bytes / ns);
    json_t *row = json_pack("{s:s, s:s, s:s, s:i, s:f, s:f, s:f, s:f, s:f}", "operator", op, "case", name, "pass", pass,
                            "runs", t->runs, "ms", t->median / 1e6, "best_ms", t->best / 1e6, "deviation_ms",
                            t->deviation / 1e6, "gflops", t->flops / ns, "gbytes", t->bytes / ns);
    return json_array_append_new(results, row) == 0 || cs_fail("benchmark: out of memory for the results");
}

static bool bench_products(vk_device *dev, json_t *results)
{
    static const char *const names[] = {"gemm NT", "gemm NN", "gemm TN"};
    static const uint32_t shapes[][3] = {{512, 512, 512}, {1024, 512, 2048}};
    for (size_t s = 0; s < CS_COUNT(shapes); s++)
        for (int layout = NN_GEMM_NT; layout <= NN_GEMM_TN; layout++) {
            nn_timing t;
            char name[64];
            snprintf(name, sizeof name, "%u x %u x %u", shapes[s][0], shapes[s][1], shapes[s][2]);
            if (!nn_bench_gemm(dev, layout, shapes[s][0], shapes[s][1], shapes[s][2], &t) ||
                !report(results, names[layout], name, "", &t))
                return false;
        }
    return true;
}

static bool bench_operator(vk_device *dev, const nn_op *op, json_t *results)
{
    for (int i = 0; i < op->case_count; i++) {
        const nn_case *c = &op->cases[i];
        nn_timing forward, backward;
        if (!c->bench)
            continue;
        if (!nn_bench_case(dev, op, c, &forward, &backward) ||
            !report(results, op->name, c->name, "forward", &forward) ||
            (backward.runs && !report(results, op->name, c->name, "backward", &backward)))
            return false;
    }
    return true;
}

static json_t *describe(const vk_caps *caps)
{
    char api[32];
    snprintf(api, sizeof api, "%u.%u.%u", caps->api_version >> 22, caps->api_version >> 12 & 0x3ff,
             caps->api_version & 0xfff);
    return json_pack("{s:s, s:s, s:s, s:s, s:b, s:s, s:[]}", "device", caps->name, "driver", caps->driver,
                     "driver_info", caps->driver_info, "vulkan", api, "cpu_driver", caps->type == VK_TYPE_CPU, "csmoe",
                     CSMOE_VERSION, "results");
}

static bool bench_opened(vk_device *dev, json_t *results)
{
    const vk_caps *caps = vk_device_caps(dev);
    if (!caps->timestamps)
        return cs_fail("benchmark: device %s has no timestamps", caps->name);
    print_heading(caps);
    if ((!op_name || !strcmp(op_name, "gemm")) && !bench_products(dev, results))
        return false;
    for (int i = 0; i < nn_op_count; i++)
        if ((!op_name || !strcmp(op_name, nn_op_table[i]->name)) && !bench_operator(dev, nn_op_table[i], results))
            return false;
    return true;
}

/* Appends one device's results to `all`. */
static bool bench_device(const char *selector, json_t *all)
{
    vk_device *dev = vk_open(&(vk_params){.selector = selector, .profile = true});
    if (!dev)
        return false;
    json_t *entry = describe(vk_device_caps(dev));
    bool ok = entry && json_array_append_new(all, entry) == 0;
    ok =
        ok ? bench_opened(dev, json_object_get(entry, "results")) : cs_fail("benchmark: out of memory for the results");
    vk_close(&dev);
    return ok;
}

/* ---- the command ------------------------------------------------------------------------------------------------- */

static bool bench_all(json_t *all)
{
    vk_caps *list;
    size_t count, chosen;
    if (!vk_list(&list, &count, &chosen))
        return false;
    free(list);
    for (size_t i = 0; i < count; i++) {
        char index[24];
        snprintf(index, sizeof index, "%zu", i);
        if (i)
            putchar('\n');
        if (!bench_device(index, all))
            return false;
    }
    return true;
}

static bool write_json(const json_t *all)
{
    char *text = json_dumps(all, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
    bool ok =
        text ? cs_write_file(json_path, text, strlen(text)) : cs_fail("%s: out of memory for the results", json_path);
    free(text);
    return ok;
}

static bool known_operator(void)
{
    return !op_name || !strcmp(op_name, "gemm") || nn_op_find(op_name) ||
           cs_fail("benchmark: there is no operator '%s'", op_name);
}

int cmd_bench(int argc, char **argv)
{
    int status;
    if (!cs_parse(&syntax, argc, argv, &status))
        return status;
    json_t *all = json_array();
    bool ok = (all || cs_fail("benchmark: out of memory for the results")) && known_operator() &&
              (device && !strcmp(device, "all") ? bench_all(all) : bench_device(device, all)) &&
              (!json_path || write_json(all));
    json_decref(all);
    return ok ? 0 : cs_failed();
}
