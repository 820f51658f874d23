/* csmoe tune: which variant of the matrix product is fastest on this device, for a configuration's shapes. */
#include <stdio.h>
#include <stdlib.h>

#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "multimodal/trainer.h"
#include "nn/tune.h"
#include "tools/commands.h"
#include "tools/options.h"

/* A layer's product, forward and backward, in every type. */
static void note_layer(nn_tune_list *list, uint32_t rows, uint32_t in, uint32_t out, uint32_t groups)
{
    static const enum nn_dtype types[] = {NN_F32, NN_F16, NN_BF16};
    for (size_t t = 0; t < CS_COUNT(types); t++) {
        nn_gemm g = {.a_type = types[t], .b_type = types[t], .groups = groups};
        g.layout = NN_GEMM_NT, g.m = rows, g.n = out, g.k = in;
        nn_tune_note(list, &g);
        g.layout = NN_GEMM_NN, g.m = rows, g.n = in, g.k = out;
        nn_tune_note(list, &g);
        g.layout = NN_GEMM_TN, g.m = out, g.n = in, g.k = rows;
        nn_tune_note(list, &g);
    }
}

/* Without a configuration: layers, plain and by expert, of the sizes that csmoe bench times products and mixtures of;
 * only the first on a CPU driver, which takes seconds for one of the others. */
static bool note_common(nn_tune_list *list, const vk_caps *caps)
{
    static const struct {
        uint32_t rows, in, out, groups;
    } layers[] = {
        {1024, 512, 512, 0},    {1024, 512, 512, 8},      {1024, 512, 2048, 0},     {1024, 512, 2048, 8},
        {4096, 1024, 1024, 0},  {4096, 1024, 4096, 0},    {4096, 4096, 4096, 0},    {2048, 128, 512, 8},
        {2048, 512, 128, 8},    {4096, 256, 1024, 8},     {4096, 1024, 256, 8},     {4096, 512, 2048, 4},
        {4096, 2048, 512, 4},   {8192, 264, 264, 16},     {32768, 2048, 8192, 8},   {32768, 8192, 2048, 8},
    };
    const size_t count = caps->type == VK_TYPE_CPU ? 2 : CS_COUNT(layers);
    for (size_t i = 0; i < count; i++)
        note_layer(list, layers[i].rows, layers[i].in, layers[i].out, layers[i].groups);
    return !list->failed;
}

/* The products of the configuration's largest steps, played on a dry device. */
static bool note_configuration(nn_tune_list *list, const mm_train_params *params)
{
    mm_memory_plan plan;
    nn_gemm_observe(nn_tune_note, list);
    bool ok = mm_train_plan(params, &plan);
    nn_gemm_observe(NULL, NULL);
    return ok && !list->failed;
}

static void print_contest(const nn_bench_contest *c)
{
    char size[48];
    const nn_bench_product *p = &c->product;
    snprintf(size, sizeof size, "%u x %u x %u", p->m, p->n, p->k);
    printf("%-4s %s  %-22s", nn_dtype_name(p->type), nn_gemm_layout_names[p->layout], size);
    if (p->groups)
        printf(" %2u groups", p->groups);
    else
        printf("          ");
    double before = 0;
    for (int i = 0; i < c->count; i++)
        if (c->times[i].variant == c->taken)
            before = c->times[i].ns;
    printf("  %-18s %9.1f us", c->times[0].variant, c->times[0].ns / 1e3);
    if (c->taken == c->times[0].variant)
        printf("  as before\n");
    else if (before == 0)
        printf("  instead of %s, which is wrong\n", c->taken);
    else
        printf("  %.2f times as fast as %s\n", before / c->times[0].ns, c->taken);
    fflush(stdout);
}

static bool measure(vk_device *device, const nn_tune_list *list, bool quick)
{
    nn_bench_contest *contests = cs_alloc(list->count, sizeof *contests, "measured matrix products");
    nn_bench bench = nn_bench_on(device, quick);
    for (size_t i = 0; contests && i < list->count; i++) {
        /* One that does not fit into memory is left to the built-in table. */
        if (!nn_bench_variants(&bench, &list->items[i], &contests[i]))
            cs_log(CS_LOG_WARN, "%s", cs_error());
        else
            print_contest(&contests[i]);
    }
    char *path = NULL;
    bool ok = contests && nn_tune_keep(device, contests, list->count, &path);
    if (ok)
        printf("kept in %s\n", path);
    free(path);
    free(contests);
    return ok;
}

static bool tune(const mm_train_params *p, bool quick)
{
    nn_tune_list list = {0};
    vk_device *device = vk_open(&(vk_params){.selector = p->device, .profile = true});
    bool ok = device && (p->config ? note_configuration(&list, p) : note_common(&list, vk_device_caps(device))) &&
              measure(device, &list, quick);
    free(list.items);
    vk_close(&device);
    return ok;
}

int cmd_tune(int argc, char **argv)
{
    mm_train_params p = {0};
    cs_strings sets = {0};
    bool quick = false;
    const cs_option options[] = {
        CS_OPT_DEVICE(&p.device),
        {"set", CS_OPT_LIST, &sets, .arg = "KEY=VALUE",
         .doc = "override a key of the configuration, as in --set train.batch=32"},
        {"quick", CS_OPT_FLAG, &quick, .doc = "time everything fewer times"},
    };
    const cs_positional positionals[] = {
        {"CONFIG.json", CS_OPTIONAL, &p.config, "configuration of training; without one, sizes of common layers"}};
    const cs_syntax syntax = {
        "tune",
        "Times every variant of the matrix product on the shapes that a configuration uses, and keeps the fastest of "
        "each in the cache folder. From then on they are used on this device with this driver; delete the file, or "
        "change the driver, and the built-in table decides again. A variant whose result is not that of the plainest "
        "one is not used, and a notice says so.",
        options, CS_COUNT(options), positionals, CS_COUNT(positionals)};
    int status;
    if (!cs_parse(&syntax, argc, argv, &status))
        return status;
    p.sets = sets.items;
    p.set_count = sets.count;
    bool ok = tune(&p, quick);
    free(sets.items);
    return ok ? 0 : cs_failed();
}
