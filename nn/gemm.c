#include "nn/gemm.h"

#include <string.h>

#include "base/error.h"

/* What a variant's shape may depend on. */
typedef struct variant {
    const char *name, *kernel;
    bool texel;             /* A and B as texel buffers; the workgroup is one subgroup, WIDTH is 4 of them */
    uint32_t height, width; /* of a workgroup's tile */
    uint32_t rows, columns; /* of an invocation's part of it; unused where texel */
    uint32_t turns;         /* of loops per 64 terms: see split_terms() */
    bool (*suits)(const vk_caps *caps, const nn_gemm *g);
} variant;

/* Mirrors shaders/include/gemm.glsl. */
typedef struct push {
    uint32_t m, n, k, a_stride, b_stride, c_stride, bias_stride, groups, flags, segments, column_tiles, row_tiles, term,
        terms;
} push;
enum { ADD_BIAS = 1, ACCUMULATE = 2 };

static uint64_t entries(const nn_gemm *g)
{
    return g->batch ? g->batch : 1;
}

/* Entries summed into each C. */
static uint32_t segments_of(const nn_gemm *g)
{
    return g->sum_batch ? (uint32_t)entries(g) : 1;
}

/* Elements of an operand that repeats every `stride` elements. */
static uint64_t extent(uint64_t copies, uint64_t stride, uint64_t elements)
{
    return (copies - 1) * stride + elements;
}

typedef struct extents {
    uint64_t a, b, c, bias;
} extents;

static extents extents_of(const nn_gemm *g)
{
    uint64_t m = g->m, n = g->n, k = g->k, outputs = g->sum_batch ? 1 : entries(g);
    bool by_rows = g->groups && g->layout != NN_GEMM_TN, by_terms = g->groups && g->layout == NN_GEMM_TN;
    return (extents){
        .a = extent(entries(g), g->a_stride, m * k),
        .b = extent(by_rows ? g->groups : entries(g), g->b_stride, n * k),
        .c = extent(by_terms ? g->groups : outputs, g->c_stride, m * n),
        .bias = extent(g->groups ? g->groups : outputs, g->bias_stride, n),
    };
}

/* ---- the variants ------------------------------------------------------------------------------------------------ */

bool nn_texel_fits(const vk_caps *caps, vk_range range, uint64_t elements)
{
    return range.offset % caps->texel_align == 0 && elements % 4 == 0 && elements / 4 <= caps->max_texel_elements;
}

/* On CPU drivers; see the shader for what must be aligned. */
static bool shuffle_suits(const vk_caps *caps, const nn_gemm *g)
{
    uint32_t contiguous = g->layout == NN_GEMM_TN ? g->m : g->k;
    uint32_t strides = g->a_stride | g->b_stride | g->c_stride | g->bias_stride;
    extents e = extents_of(g);
    return caps->type == VK_TYPE_CPU && caps->subgroup_shuffle && g->m && g->n % 4 == 0 && contiguous % 4 == 0 &&
           strides % 4 == 0 && nn_texel_fits(caps, g->a, e.a) && nn_texel_fits(caps, g->b, e.b);
}

static uint64_t tiles_of(const nn_gemm *g, uint32_t height, uint32_t width)
{
    uint64_t copies = g->sum_batch ? 1 : g->groups && g->layout == NN_GEMM_TN ? g->groups : entries(g);
    return copies * ((g->m + height - 1) / height) * ((g->n + width - 1) / width);
}

/* Large tiles read least; small ones where there would be too few large ones to go round. */
static bool large_suits(const vk_caps *caps, const nn_gemm *g)
{
    return caps->max_invocations >= 64 && tiles_of(g, 64, 64) >= 64;
}

static bool any_suits(const vk_caps *caps, const nn_gemm *g)
{
    (void)caps;
    (void)g;
    return true;
}

/* Which variant a device gets: the first that suits. */
static const variant variants[] = {
    {"gemm_shuffle", "gemm_shuffle", .texel = true, .height = 8, .turns = 16, .suits = shuffle_suits},
    {"gemm_tiled_64", "gemm_tiled", false, 64, 64, 8, 8, 196, large_suits},
    {"gemm_tiled_32", "gemm_tiled", false, 32, 32, 4, 4, 132, any_suits},
};

enum { VARIANTS = sizeof variants / sizeof *variants };

const char *nn_gemm_variant_name(int index)
{
    return index >= 0 && index < VARIANTS ? variants[index].name : NULL;
}

static const variant *find_variant(const char *name)
{
    for (int i = 0; i < VARIANTS; i++)
        if (!strcmp(variants[i].name, name))
            return &variants[i];
    return NULL;
}

bool nn_gemm_variant_suits(vk_device *device, const char *name, const nn_gemm *g)
{
    const variant *v = find_variant(name);
    return v && v->suits(vk_device_caps(device), g);
}

static const variant *choose(const vk_caps *caps, const nn_gemm *g)
{
    if (g->variant) {
        const variant *v = find_variant(g->variant);
        if (!v)
            return cs_fail("matrix product: there is no variant '%s'", g->variant), NULL;
        if (!v->suits(caps, g))
            return cs_fail("matrix product: variant '%s' does not suit these sizes or this device", g->variant), NULL;
        return v;
    }
    const variant *v = variants;
    while (!v->suits(caps, g))
        v++;
    return v;
}

/* ---- recording --------------------------------------------------------------------------------------------------- */

static bool check_range(const nn_gemm *g, const char *name, vk_range range, uint64_t elements)
{
    if (elements == 0 || range.size >= elements * 4)
        return true;
    return cs_fail("matrix product %s of %u x %u x %u: %s has %llu bytes and needs %llu", g->label ? g->label : "",
                   g->m, g->n, g->k, name, (unsigned long long)range.size, (unsigned long long)elements * 4);
}

static bool check(const nn_gemm *g)
{
    if (g->groups && (entries(g) > 1 || g->sum_batch))
        return cs_fail("matrix product: groups and a batch together");
    extents e = extents_of(g);
    return check_range(g, "A", g->a, e.a) && check_range(g, "B", g->b, e.b) && check_range(g, "C", g->c, e.c) &&
           (!g->bias.block || check_range(g, "the bias", g->bias, e.bias)) &&
           (!g->groups || check_range(g, "the list of offsets", g->offsets, g->groups + 1));
}

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

/* Terms that one dispatch sums up; longer sums take several, each adding to the ones before. */
static uint32_t split_terms(const vk_caps *caps, const nn_gemm *g, const variant *v, uint32_t segments)
{
    uint32_t most = MAX_TURNS / segments / v->turns * 64;
    return caps->type != VK_TYPE_CPU || g->k <= most ? g->k : most ? most : 64;
}

/* Shares `most` tiles of one workgroup out between columns and rows: along the columns where all of B fits in a core's
 * cache, then A's rows are read once; else along the rows, then B's columns are. */
static void shape_workgroup(const nn_gemm *g, push *p, uint64_t most, uint32_t column_tiles, uint32_t row_tiles)
{
    enum { CACHE = 256 << 10 };
    if ((uint64_t)g->n * g->k * 4 <= CACHE) {
        p->column_tiles = clamp(most, 1, column_tiles);
        p->row_tiles = clamp(most / p->column_tiles, 1, row_tiles);
    } else {
        p->row_tiles = clamp(most, 1, row_tiles);
        p->column_tiles = clamp(most / p->row_tiles, 1, column_tiles);
    }
}

/* Splits the tiles among workgroups. A CPU driver pays for each workgroup about what a tile of 64 terms costs, so there
 * one makes several neighbouring tiles, as long as there are enough workgroups for many cores. */
static bool plan_groups(const vk_caps *caps, const nn_gemm *g, const variant *v, push *p, uint32_t groups[3])
{
    enum { ENOUGH = 128, MOST = 8 };
    uint32_t height = v->height, width = v->texel ? 4 * caps->subgroup_size : v->width;
    bool by_rows = g->groups && g->layout != NN_GEMM_TN;
    /* A group's last tile may be a partial one: at most groups - 1 tiles more than without groups. */
    uint32_t row_tiles =
        by_rows ? (uint32_t)((g->m + (uint64_t)g->groups * (height - 1)) / height) : ceil_div(g->m, height);
    uint32_t column_tiles = ceil_div(g->n, width);
    groups[2] = g->groups && !by_rows ? g->groups : g->sum_batch ? 1 : (uint32_t)entries(g);
    uint64_t tiles = (uint64_t)row_tiles * column_tiles * groups[2];
    uint64_t turns = p->segments * ((uint64_t)p->terms * v->turns / 64 + 1) + TURNS_AROUND + g->groups;
    uint32_t most = caps->type == VK_TYPE_CPU ? clamp(MAX_TURNS / turns, 1, MOST) : 1;
    shape_workgroup(g, p, clamp(tiles / ENOUGH, 1, most), column_tiles, row_tiles);
    if (row_tiles / p->row_tiles >= caps->max_groups[1])
        p->row_tiles = ceil_div(row_tiles, caps->max_groups[1]);
    groups[0] = ceil_div(column_tiles, p->column_tiles);
    groups[1] = ceil_div(row_tiles, p->row_tiles);
    if (groups[2] > caps->max_groups[2])
        return cs_fail("matrix product: %u entries or groups; this device takes %u", groups[2], caps->max_groups[2]);
    return true;
}

static vk_bind bind(vk_range range, uint64_t elements, uint32_t access)
{
    if (range.block)
        range.size = elements * 4;
    return (vk_bind){range, access};
}

static void set_binds(vk_dispatch *d, const nn_gemm *g, const variant *v, uint32_t terms)
{
    extents e = extents_of(g);
    uint32_t read = v->texel ? VK_READ | VK_TEXEL : VK_READ;
    d->bind[0] = bind(g->a, e.a, read);
    d->bind[1] = bind(g->b, e.b, read);
    d->bind[2] = bind(g->c, e.c, g->accumulate ? VK_READ | VK_WRITE : VK_WRITE);
    d->bind[3] = bind(g->bias, e.bias, VK_READ);
    d->bind[4] = bind(g->offsets, g->groups ? g->groups + 1 : 0, VK_READ);
    d->binds = 5;
    d->flops = 2.0 * g->m * g->n * terms * (g->groups ? 1 : (double)entries(g));
    d->bytes = 4.0 * ((double)e.a + (double)e.b + (double)e.c * (g->accumulate ? 2 : 1));
}

static void set_specs(vk_dispatch *d, const nn_gemm *g, const variant *v, const vk_caps *caps)
{
    if (v->texel) {
        d->subgroup = caps->subgroup_control ? caps->subgroup_size : 0;
        uint32_t steps = g->layout == NN_GEMM_NT ? 4 : 1; /* whole cache lines along the terms */
        memcpy(d->spec, (uint32_t[]){caps->subgroup_size, g->layout, v->height, steps}, 4 * sizeof *d->spec);
        d->specs = 4;
    } else {
        uint32_t invocations = v->height / v->rows * (v->width / v->columns);
        memcpy(d->spec, (uint32_t[]){invocations, g->layout, v->height, v->width, v->rows, v->columns},
               6 * sizeof *d->spec);
        d->specs = 6;
    }
}

static bool run_window(vk_device *device, const nn_gemm *g, const variant *v, uint32_t term, uint32_t terms)
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
        .flags = (g->bias.block ? ADD_BIAS : 0) | (g->accumulate ? ACCUMULATE : 0),
        .segments = segments_of(g),
        .term = term,
        .terms = terms,
    };
    vk_dispatch d = {.kernel = v->kernel, .label = g->label ? g->label : v->name, .push = &p, .push_bytes = sizeof p};
    if (!plan_groups(caps, g, v, &p, d.groups))
        return false;
    set_binds(&d, g, v, terms);
    set_specs(&d, g, v, caps);
    return vk_run(device, &d);
}

static bool run_windows(vk_device *device, const nn_gemm *g, const variant *v)
{
    uint32_t terms = split_terms(vk_device_caps(device), g, v, segments_of(g));
    if (!run_window(device, g, v, 0, terms))
        return false;
    nn_gemm rest = *g;
    rest.accumulate = true;
    rest.bias = (vk_range){0};
    for (uint32_t term = terms; term < g->k; term += terms)
        if (!run_window(device, &rest, v, term, terms))
            return false;
    return true;
}

/* ---- operands larger than what a device binds at once ------------------------------------------------------------ */

static bool fits(const vk_caps *caps, const nn_gemm *g, const variant *v)
{
    uint64_t most = (g->max_range ? g->max_range : caps->max_storage_range) / 4;
    extents e = extents_of(g);
    return e.c <= most && e.bias <= most && (v->texel || (e.a <= most && e.b <= most));
}

static vk_range skip(vk_range range, uint64_t elements)
{
    if (range.block) {
        range.offset += elements * 4;
        range.size -= elements * 4;
    }
    return range;
}

/* The two halves of a batch. */
static void halve_batch(nn_gemm *first, nn_gemm *rest)
{
    uint32_t half = first->batch / 2;
    first->batch = half;
    rest->batch -= half;
    rest->a = skip(rest->a, (uint64_t)half * rest->a_stride);
    rest->b = skip(rest->b, (uint64_t)half * rest->b_stride);
    if (rest->sum_batch) {
        rest->accumulate = true;
        rest->bias = (vk_range){0};
    } else {
        rest->c = skip(rest->c, (uint64_t)half * rest->c_stride);
        rest->bias = skip(rest->bias, (uint64_t)half * rest->bias_stride);
    }
}

/* Rows of a half: any number of 64 rows keeps every alignment. */
static uint32_t half_of(uint32_t rows)
{
    return (rows / 2 + 63) / 64 * 64;
}

static void halve_rows(nn_gemm *first, nn_gemm *rest)
{
    uint32_t half = half_of(first->m);
    first->m = half;
    rest->m -= half;
    rest->a = skip(rest->a, (uint64_t)half * rest->k);
    rest->c = skip(rest->c, (uint64_t)half * rest->n);
}

static void halve_terms(nn_gemm *first, nn_gemm *rest)
{
    uint32_t half = half_of(first->k);
    first->k = half;
    rest->k -= half;
    rest->a = skip(rest->a, (uint64_t)half * rest->m);
    rest->b = skip(rest->b, (uint64_t)half * rest->n);
    rest->accumulate = true;
    rest->bias = (vk_range){0};
}

static bool run_halves(vk_device *device, const nn_gemm *g)
{
    nn_gemm first = *g, rest = *g;
    if (entries(g) > 1)
        halve_batch(&first, &rest);
    else if (!g->groups && g->layout != NN_GEMM_TN && g->m > 64)
        halve_rows(&first, &rest);
    else if (!g->groups && g->layout == NN_GEMM_TN && g->k > 64)
        halve_terms(&first, &rest);
    else
        return cs_fail(
            "matrix product %s of %u x %u x %u: a matrix is larger than the %llu bytes that this device binds",
            g->label ? g->label : "", g->m, g->n, g->k, (unsigned long long)vk_device_caps(device)->max_storage_range);
    return nn_gemm_run(device, &first) && nn_gemm_run(device, &rest);
}

bool nn_gemm_run(vk_device *device, const nn_gemm *g)
{
    const vk_caps *caps = vk_device_caps(device);
    if (g->m == 0 || g->n == 0)
        return true;
    const variant *v = check(g) ? choose(caps, g) : NULL;
    if (!v)
        return false;
    return fits(caps, g, v) ? run_windows(device, g, v) : run_halves(device, g);
}
