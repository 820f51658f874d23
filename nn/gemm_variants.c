/* The variants of the matrix product, which of them a device gets, and how they are launched. */
#include <string.h>

#include "base/error.h"
#include "nn/gemm_internal.h"
#include "nn/tune.h"

/* Mirrors shaders/include/gemm_finish.glsl. */
typedef struct push {
    uint32_t m, n, k, a_stride, b_stride, c_stride, bias_stride, groups, segments, column_tiles, row_tiles, term,
        terms, nothing, group_step, first_group;
} push;
enum { ADD_BIAS = 16, ACCUMULATE = 32, STORE_EXTRA = 64 }; /* beside the epilogue */

/* ---- the table --------------------------------------------------------------------------------------------------- */

#define SHUFFLE \
    .texel = true, .columns = 4, .suits = nn_gemm_shuffle_suits, .specialize = nn_gemm_shuffle_specialize
#define MATRIX \
    .kernel = "gemm_coopmat_f16", .suits = nn_gemm_matrix_suits, .pays = nn_gemm_tiles_pay, \
    .specialize = nn_gemm_matrix_specialize
#define WORKGROUP \
    .kernel = "gemm_coopmat2_f16", .unproven = true, .suits = nn_gemm_workgroup_suits, \
    .specialize = nn_gemm_workgroup_specialize
#define TILED \
    .kernel = "gemm_tiled", .suits = nn_gemm_tiled_suits, .pays = nn_gemm_tiles_pay, \
    .specialize = nn_gemm_tiled_specialize

/* Which variant a device gets: the first that suits and pays and is proven. The last runs everywhere. A row that suits
 * only where one before it does is never reached so: it is for csmoe tune to choose. */
static const nn_gemm_variant variants[] = {
    {"gemm_shuffle_tall", "gemm_shuffle_wide", .wide = true, .height = NN_GEMM_TALL, .turns = 10,
     .pays = nn_gemm_shuffle_tall_pays, SHUFFLE},
    {"gemm_shuffle_wide", "gemm_shuffle_wide", .wide = true, .height = 16, .turns = 10, SHUFFLE},
    {"gemm_shuffle", "gemm_shuffle", .height = 16, .turns = 8, SHUFFLE},
    {"gemm_coopmat2_256", .height = 128, .width = 256, .depth = 64, .invocations = 256, .turns = 70, WORKGROUP},
    {"gemm_coopmat2_128", .height = 128, .width = 128, .depth = 64, .invocations = 256, .turns = 70, WORKGROUP},
    {"gemm_coopmat2_64", .height = 64, .width = 64, .depth = 64, .invocations = 128, .turns = 70, WORKGROUP},
    {"gemm_coopmat_128", .height = 128, .width = 128, .depth = 32, .invocations = 128, .turns = 70, MATRIX},
    {"gemm_coopmat_128_256", .height = 128, .width = 128, .depth = 32, .invocations = 256, .turns = 70, MATRIX},
    {"gemm_coopmat_256", .height = 128, .width = 256, .depth = 16, .invocations = 256, .turns = 140, MATRIX},
    {"gemm_coopmat_64", .height = 64, .width = 64, .depth = 32, .invocations = 128, .turns = 70, MATRIX},
    {"gemm_coopmat_32", .height = 32, .width = 32, .depth = 32, .invocations = 64, .turns = 70, MATRIX},
    {"gemm_tiled_128", .height = 128, .width = 128, .depth = 8, .rows = 8, .columns = 8, .turns = 136, TILED},
    {"gemm_tiled_64", .height = 64, .width = 64, .depth = 16, .rows = 8, .columns = 8, .turns = 196, TILED},
    {"gemm_tiled_32", .height = 32, .width = 32, .depth = 16, .rows = 4, .columns = 4, .turns = 132, TILED},
};

enum { VARIANTS = sizeof variants / sizeof *variants };

const char *nn_gemm_variant_name(int index)
{
    return index >= 0 && index < VARIANTS ? variants[index].name : NULL;
}

const nn_gemm_variant *nn_gemm_find(const char *name)
{
    for (int i = 0; i < VARIANTS; i++)
        if (!strcmp(variants[i].name, name))
            return &variants[i];
    return NULL;
}

const nn_gemm_variant *nn_gemm_plainest(void)
{
    return &variants[VARIANTS - 1];
}

bool nn_gemm_variant_suits(vk_device *device, const char *name, const nn_gemm *g)
{
    const nn_gemm_variant *v = nn_gemm_find(name);
    return v && v->suits(vk_device_caps(device), v, g);
}

const nn_gemm_variant *nn_gemm_built_in(const vk_caps *caps, const nn_gemm *g)
{
    const nn_gemm_variant *v = variants;
    while (v->unproven || !v->suits(caps, v, g) || (v->pays && !v->pays(caps, v, g)))
        v++;
    return v;
}

const nn_gemm_variant *nn_gemm_choose(vk_device *device, const nn_gemm *g)
{
    const vk_caps *caps = vk_device_caps(device);
    if (g->variant) {
        const nn_gemm_variant *v = nn_gemm_find(g->variant);
        if (!v)
            return cs_fail("matrix product: there is no variant '%s'", g->variant), NULL;
        if (!v->suits(caps, v, g))
            return cs_fail("matrix product: variant '%s' does not suit these sizes or this device", g->variant), NULL;
        return v;
    }
    const char *tuned = nn_tune_choice(device, g);
    const nn_gemm_variant *v = tuned ? nn_gemm_find(tuned) : NULL;
    /* Tuned without a list of rows, which the unproven ones look up for every element. */
    bool as_tuned = v && v->suits(caps, v, g) && !(v->unproven && g->rows.block);
    return as_tuned ? v : nn_gemm_built_in(caps, g);
}

/* ---- the grid ---------------------------------------------------------------------------------------------------- */

static uint32_t ceil_div(uint64_t a, uint64_t b)
{
    return (uint32_t)((a + b - 1) / b);
}

static uint32_t clamp(uint64_t x, uint64_t low, uint64_t high)
{
    return (uint32_t)(x < low ? low : x > high ? high : x);
}

/* lavapipe 22.3 ends all loops of an invocation after 65535 turns altogether, nested or one after the other, without a
 * word. This is what one workgroup may take there, with room for the loops around the sums. */
enum { MAX_TURNS = 60000, TURNS_AROUND = 64 };

uint32_t nn_gemm_terms(const vk_caps *caps, const nn_gemm *g, const nn_gemm_variant *v)
{
    uint32_t most = MAX_TURNS / nn_gemm_segments(g) / v->turns * 64;
    return caps->type != VK_TYPE_CPU || g->k <= most ? g->k : most ? most : 64;
}

/* So many of `tiles` for each of several, at most `most`, that the last gets about as many as the others. */
static uint32_t even_share(uint32_t tiles, uint64_t most)
{
    return ceil_div(tiles, ceil_div(tiles, clamp(most, 1, tiles)));
}

/* Shares `most` tiles of one workgroup out between columns and rows: along the columns, then A's rows are read once, or
 * along the rows, then B's columns are. */
static void shape_workgroup(push *p, bool rows_first, uint64_t most, uint32_t column_tiles, uint32_t row_tiles)
{
    if (rows_first) {
        p->column_tiles = even_share(column_tiles, most);
        p->row_tiles = even_share(row_tiles, most / p->column_tiles);
    } else {
        p->row_tiles = even_share(row_tiles, most);
        p->column_tiles = even_share(column_tiles, most / p->row_tiles);
    }
}

static uint32_t common_divisor(uint32_t a, uint32_t b)
{
    return b ? common_divisor(b, a % b) : a;
}

/* A step that visits all groups, modulo their number, and is near its golden section: a CPU driver gives each core one
 * stretch of the grid, and experts with many rows are often neighbours. */
static uint32_t group_step(uint32_t groups)
{
    uint32_t step = (uint32_t)(0.382 * groups) + 1;
    while (groups && common_divisor(step, groups) != 1)
        step++;
    return step;
}

/* Splits the tiles among workgroups. A CPU driver pays for each workgroup about what a tile of 64 terms costs, so there
 * one makes several neighbouring tiles, as long as there are enough workgroups for many cores: many where their sums
 * are short, and where B is cached, so that whole rows of tiles are made. */
static bool plan_groups(const vk_caps *caps, const nn_gemm *g, const nn_gemm_variant *v, push *p, uint32_t groups[3])
{
    enum { ENOUGH = 64, MOST = 8, MANY = 16, SHORT_SUM = 128 };
    uint32_t height = v->height, width = v->texel ? v->columns * caps->subgroup_size : v->width;
    bool by_rows = g->groups && g->layout != NN_GEMM_TN;
    /* A group's last tile may be a partial one: at most groups - 1 tiles more than without groups. */
    uint32_t row_tiles =
        by_rows ? (uint32_t)((g->m + (uint64_t)g->groups * (height - 1)) / height) : ceil_div(g->m, height);
    uint32_t column_tiles = ceil_div(g->n, width);
    groups[2] = g->groups && !by_rows ? g->groups : g->sum_batch ? 1 : (uint32_t)nn_gemm_entries(g);
    uint64_t tiles = (uint64_t)row_tiles * column_tiles * groups[2];
    uint64_t turns = p->segments * ((uint64_t)p->terms * v->turns / 64 + 1) + TURNS_AROUND + g->groups;
    bool makes_rows = nn_gemm_makes_rows(caps, v, g);
    uint32_t wanted = p->terms > SHORT_SUM && !makes_rows ? MOST : MANY;
    uint32_t most = caps->type == VK_TYPE_CPU ? clamp(MAX_TURNS / turns, 1, wanted) : 1;
    shape_workgroup(p, makes_rows, clamp(tiles / ENOUGH, 1, most), column_tiles, row_tiles);
    if (row_tiles / p->row_tiles >= caps->max_groups[1])
        p->row_tiles = ceil_div(row_tiles, caps->max_groups[1]);
    groups[0] = ceil_div(column_tiles, p->column_tiles);
    groups[1] = ceil_div(row_tiles, p->row_tiles);
    /* So many row tiles there are at most: without equal shares the last workgroups, all one thread's, would be
     * idle. */
    if (by_rows && caps->type == VK_TYPE_CPU)
        p->row_tiles = 0;
    if (groups[2] > caps->max_groups[2])
        return cs_fail("matrix product: %u entries or groups; this device takes %u", groups[2], caps->max_groups[2]);
    return true;
}

/* ---- the dispatch ------------------------------------------------------------------------------------------------ */

static bool stores_extra(const nn_gemm *g)
{
    return g->extra.block && (g->epilogue == NN_GEMM_ACTIVATE || g->epilogue == NN_GEMM_GATE ||
                              g->epilogue == NN_GEMM_AFFINITY);
}

/* Whole words: an odd number of 16-bit values ends in the middle of one. */
static void add_bind(vk_dispatch *d, vk_range range, uint64_t elements, enum nn_dtype type, uint32_t access)
{
    if (range.block && access & VK_TEXEL)
        range.size = nn_texel_bytes(elements, type);
    else if (range.block)
        range.size = (elements * nn_dtype_size(type) + 3) / 4 * 4;
    d->bind[d->binds++] = (vk_bind){range, access};
    d->bytes += (double)range.size * (access == (VK_READ | VK_WRITE) ? 2 : 1);
}

static void set_binds(vk_dispatch *d, const nn_gemm *g, const nn_gemm_variant *v)
{
    const vk_range none = {0};
    nn_gemm_extents e = nn_gemm_extents_of(g);
    uint32_t read = v->texel ? VK_READ | VK_TEXEL : VK_READ;
    add_bind(d, g->a, e.a, g->a_type, read);
    add_bind(d, g->b, e.b, g->b_type, read);
    add_bind(d, g->c, e.c, g->c_type, g->accumulate && !v->wide ? VK_READ | VK_WRITE : VK_WRITE);
    add_bind(d, g->bias, e.bias, NN_F32, VK_READ);
    add_bind(d, g->groups ? g->offsets : none, e.offsets, NN_I32, VK_READ);
    add_bind(d, g->rows, e.rows, NN_I32, VK_READ);
    add_bind(d, nn_gemm_reads_other(g) ? g->other : none, e.c, g->other_type,
             v->wide ? VK_READ | VK_TEXEL : VK_READ);
    /* Nothing that is written may stand for absent memory, which all kernels share: C then stands for `extra`. */
    if (stores_extra(g))
        add_bind(d, g->extra, nn_gemm_extra_elements(g, e.c), g->extra_type, VK_WRITE);
    else
        d->bind[d->binds++] = d->bind[2];
    if (v->wide)
        add_bind(d, g->c, e.c, g->c_type, VK_READ | VK_TEXEL);
}

static void set_specs(vk_dispatch *d, const nn_gemm *g, const nn_gemm_variant *v, const vk_caps *caps)
{
    uint32_t *spec = d->spec;
    spec[NN_GEMM_SPEC_TYPES] = g->a_type | g->b_type << 4 | g->c_type << 8 | g->other_type << 12 | g->extra_type << 16;
    spec[NN_GEMM_SPEC_OUTPUT] = g->epilogue | (g->bias.block ? ADD_BIAS : 0) | (g->accumulate ? ACCUMULATE : 0) |
                        (stores_extra(g) ? STORE_EXTRA : 0);
    spec[NN_GEMM_SPEC_ACTIVATION] = (uint32_t)g->activation;
    spec[NN_GEMM_SPEC_GATHER] = g->rows.block != NULL;
    spec[NN_GEMM_SPEC_VECTOR] = (g->n | g->c_stride | g->bias_stride) % 4 == 0;
    d->specs = NN_GEMM_SPECS;
    v->specialize(caps, v, g, d);
}

bool nn_gemm_record(vk_device *device, const nn_gemm *g, const nn_gemm_variant *v, uint32_t term, uint32_t terms)
{
    const vk_caps *caps = vk_device_caps(device);
    push p = {
        .m = g->m,
        .n = g->n,
        .k = g->k,
        .a_stride = g->a_stride,
        .b_stride = g->b_stride,
        .c_stride = g->c_stride,
        .bias_stride = g->bias_stride,
        .groups = g->groups,
        .segments = nn_gemm_segments(g),
        .term = term,
        .terms = terms,
        .group_step = group_step(g->groups),
        .first_group = g->first_group,
    };
    vk_dispatch d = {
        .kernel = v->kernel,
        .label = g->label ? g->label : v->name,
        .push = &p,
        .push_bytes = sizeof p,
        .flops = 2.0 * g->m * g->n * terms * (g->groups ? 1 : (double)nn_gemm_entries(g)),
    };
    if (!plan_groups(caps, g, v, &p, d.groups))
        return false;
    set_binds(&d, g, v);
    set_specs(&d, g, v, caps);
    return vk_run(device, &d);
}
