/* csmoe bench: how fast a device is, its kernels, the layer, a training step. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/bench_report.h"
#include "tools/bench_run.h"
#include "tools/commands.h"
#include "tools/options.h"

/* What both commands can be asked for. */
typedef struct outputs {
    cs_strings files;
    const char *json; /* a JSON file of any name */
} outputs;

static bool check_outputs(const outputs *o)
{
    for (size_t i = 0; i < o->files.count; i++)
        if (!bench_output_known(o->files.items[i]))
            return false;
    return true;
}

static bool save_outputs(const outputs *o, const json_t *doc)
{
    for (size_t i = 0; i < o->files.count; i++)
        if (!bench_save(doc, o->files.items[i]))
            return false;
    return !o->json || bench_save_json(doc, o->json);
}

/* ---- bench compare ----------------------------------------------------------------------------------------------- */

static bool compare(const cs_strings *files, const outputs *o, json_t *doc)
{
    for (size_t i = 0; i < files->count; i++) {
        json_t *one = bench_load(files->items[i]);
        const bool ok = one && (json_array_extend(doc, one) == 0 || cs_fail("out of memory for the results"));
        json_decref(one);
        if (!ok)
            return false;
    }
    return bench_print_comparison(doc, stdout) && save_outputs(o, doc);
}

static int cmd_compare(int argc, char **argv)
{
    cs_strings files = {0};
    outputs o = {0};
    const cs_option options[] = {
        {"output", CS_OPT_LIST, &o.files, .arg = "FILE",
         .doc = "write the comparison too: .html (bars, roofline), .md, .csv or .json; may be given several times"},
    };
    const cs_positional positionals[] = {{"FILE.json", CS_MANY, &files, "results of csmoe bench"}};
    const cs_syntax syntax = {"bench compare",
                              "Merges the results of several machines into one table. A figure in brackets says how "
                              "many times as fast as the first device.",
                              options, CS_COUNT(options), positionals, CS_COUNT(positionals)};
    int status;
    if (!cs_parse(&syntax, argc, argv, &status))
        return status;
    json_t *doc = json_array();
    bool ok = (doc || cs_fail("out of memory for the results")) && check_outputs(&o) && compare(&files, &o, doc);
    json_decref(doc);
    free(files.items);
    free(o.files.items);
    return ok ? 0 : cs_failed();
}

/* ---- bench ------------------------------------------------------------------------------------------------------- */

static bool run_all(const bench_job *job, json_t *doc)
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
        if (!bench_run(index, job, doc))
            return false;
    }
    return true;
}

/* With one operator only, that and the peaks are all there is; with --shape what the shapes are of. */
static bool choose_parts(bench_job *job, const cs_strings *parts)
{
    const bool narrowed = job->op || job->products || job->layers;
    for (int k = 0; k < BENCH_PARTS; k++)
        job->part[k] = !parts->count && !narrowed;
    job->part[BENCH_OPS] |= !parts->count && (job->op || job->products);
    job->part[BENCH_MOE] |= !parts->count && job->layers;
    for (size_t i = 0; i < parts->count; i++) {
        int k = 0;
        while (k < BENCH_PARTS && strcmp(parts->items[i], bench_part_names[k]))
            k++;
        if (k == BENCH_PARTS)
            return cs_fail("--part %s: must be peaks, ops, moe or step", parts->items[i]);
        job->part[k] = true;
    }
    if (job->products && !job->op)
        job->op = "gemm";
    return true;
}

/* "M,N,K": a product; "B,N,D,H,E,K": a layer. */
static bool read_shape(bench_job *job, const char *text)
{
    int v[6], used = 0;
    int count = sscanf(text, "%d,%d,%d%n,%d,%d,%d%n", &v[0], &v[1], &v[2], &used, &v[3], &v[4], &v[5], &used);
    bool ok = (count == 3 || count == 6) && !text[used];
    for (int i = 0; ok && i < count; i++)
        ok = v[i] > 0 && v[i] <= 1 << 20;
    if (!ok)
        return cs_fail("--shape %s: must be M,N,K (a product) or B,N,D,H,E,K (a layer), each from 1", text);
    if ((count == 3 ? job->products : job->layers) == BENCH_SHAPES)
        return cs_fail("--shape %s: at most %d shapes are possible", text, BENCH_SHAPES);
    for (int i = 0; i < count; i++)
        if (count == 3)
            job->product[job->products].size[i] = (uint32_t)v[i];
        else
            job->layer[job->layers].size[i] = v[i];
    job->products += count == 3;
    job->layers += count == 6;
    return true;
}

static bool make_job(bench_job *job, const cs_strings *shapes, const cs_strings *parts)
{
    for (size_t i = 0; i < shapes->count; i++)
        if (!read_shape(job, shapes->items[i]))
            return false;
    if (job->op && strcmp(job->op, "gemm") && !nn_op_find(job->op))
        return cs_fail("benchmark: there is no operator '%s'", job->op);
    return choose_parts(job, parts);
}

int cmd_bench(int argc, char **argv)
{
    if (argc > 1 && !strcmp(argv[1], "compare"))
        return cmd_compare(argc - 1, argv + 1);
    bench_job job = {0};
    outputs o = {0};
    cs_strings shapes = {0}, parts = {0};
    const char *device = NULL;
    int64_t batch = 0;
    const cs_option options[] = {
        {"device", CS_OPT_STRING, &device, .arg = "N|all",
         .doc = "device: index, part of the name or UUID; all: one after the other"},
        {"part", CS_OPT_LIST, &parts, .arg = "PART",
         .doc = "peaks, ops (with peaks), moe or step; may be given several times; default: all"},
        {"op", CS_OPT_STRING, &job.op, .arg = "NAME", .doc = "one operator only; gemm: the plain and grouped products"},
        {"shape", CS_OPT_LIST, &shapes, .arg = "SHAPE",
         .doc = "instead of the usual ones: M,N,K of products, B,N,D,H,E,K of layers; may be given several times"},
        {"batch", CS_OPT_INT, &batch, 1, 4096, "N", "samples of a training step"},
        {"quick", CS_OPT_FLAG, &job.quick, .doc = "fewer runs and shapes: a first impression"},
        {"output", CS_OPT_LIST, &o.files, .arg = "FILE",
         .doc = "write the results too: .md, .csv, .json or .html; may be given several times"},
        {"json", CS_OPT_STRING, &o.json, .arg = "FILE", .doc = "write the results as JSON, whatever the file's name"},
    };
    const cs_syntax syntax = {
        .name = "bench",
        .about = "Measures a device: its peaks, the matrix products and every operator forward and backward by the "
                 "device's own clock, the mixture-of-experts layer and training steps by the wall clock. Medians of "
                 "several runs after a first one; the deviation is the median distance from the median. 'csmoe bench "
                 "compare FILE...' compares machines.",
        .options = options,
        .option_count = CS_COUNT(options),
    };
    int status;
    if (!cs_parse(&syntax, argc, argv, &status))
        return status;
    job.batch = (int)batch;
    json_t *doc = json_array();
    bool ok = (doc || cs_fail("out of memory for the results")) && make_job(&job, &shapes, &parts) &&
              check_outputs(&o) &&
              (device && !strcmp(device, "all") ? run_all(&job, doc) : bench_run(device, &job, doc)) &&
              save_outputs(&o, doc);
    json_decref(doc);
    free(shapes.items);
    free(parts.items);
    free(o.files.items);
    return ok ? 0 : cs_failed();
}
