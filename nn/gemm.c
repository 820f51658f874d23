/* Checks products and cuts them up into what one dispatch can do. */
#include "nn/gemm.h"

#include "base/error.h"
#include "nn/bias_sum.h"
#include "nn/gemm_internal.h"

const char *const nn_gemm_layout_names[] = {"NT", "NN", "TN"};

uint64_t nn_gemm_entries(const nn_gemm *g)
{
    return g->batch ? g->batch : 1;
}

uint32_t nn_gemm_segments(const nn_gemm *g)
{
    return g->sum_batch ? (uint32_t)nn_gemm_entries(g) : 1;
}

/* Elements of an operand that repeats every `stride` elements. */
static uint64_t extent(uint64_t copies, uint64_t stride, uint64_t elements)
{
    return (copies - 1) * stride + elements;
}

/* Elements of what is gathered from: all there are. */
static uint64_t whole(vk_range range, enum nn_dtype type)
{
    return range.size / nn_dtype_size(type);
}

nn_gemm_extents nn_gemm_extents_of(const nn_gemm *g)
{
    uint64_t m = g->m, n = g->n, k = g->k, entries = nn_gemm_entries(g), outputs = g->sum_batch ? 1 : entries;
    bool by_rows = g->groups && g->layout != NN_GEMM_TN, by_terms = g->groups && g->layout == NN_GEMM_TN;
    nn_gemm_extents e = {
        .a = extent(entries, g->a_stride, m * k),
        .b = extent(by_rows ? g->groups : entries, g->b_stride, n * k),
        .c = extent(by_terms ? g->groups : outputs, g->c_stride, m * n),
        .bias = g->bias.block ? extent(g->first_group + (g->groups ? g->groups : outputs), g->bias_stride, n) : 0,
        .offsets = g->groups ? g->first_group + g->groups + 1 : 0,
    };
    if (g->rows.block && g->layout == NN_GEMM_TN) {
        e.b = whole(g->b, g->b_type);
        e.rows = k;
    } else if (g->rows.block) {
        e.a = whole(g->a, g->a_type);
        e.rows = m;
    }
    return e;
}

bool nn_gemm_reads_other(const nn_gemm *g)
{
    return g->epilogue == NN_GEMM_GATE || g->epilogue == NN_GEMM_SLOPE || g->epilogue == NN_GEMM_ADD;
}

uint64_t nn_gemm_extra_elements(const nn_gemm *g, uint64_t elements)
{
    return g->epilogue == NN_GEMM_AFFINITY ? elements / 4 : elements;
}

/* ---- checks ------------------------------------------------------------------------------------------------------ */

static bool check_range(const nn_gemm *g, const char *name, vk_range range, uint64_t elements, enum nn_dtype type)
{
    uint64_t bytes = elements * nn_dtype_size(type);
    if (range.size >= bytes)
        return true;
    return cs_fail("matrix product %s of %u x %u x %u: %s has %llu bytes and needs %llu", g->label ? g->label : "",
                   g->m, g->n, g->k, name, (unsigned long long)range.size, (unsigned long long)bytes);
}

/* Two columns of 16 bits share a word, which one invocation writes. */
static bool check_type(const nn_gemm *g, const char *name, enum nn_dtype type, bool by_row)
{
    if (!nn_is_float(type))
        return cs_fail("matrix product: %s is %s", name, nn_dtype_name(type));
    if (by_row && nn_is_half(type) && (g->n | g->c_stride) % 2)
        return cs_fail("matrix product of %u x %u x %u: %s in %s needs an even number of columns", g->m, g->n, g->k,
                       name, nn_dtype_name(type));
    return true;
}

static bool check_types(const nn_gemm *g)
{
    return check_type(g, "A", g->a_type, false) && check_type(g, "B", g->b_type, false) &&
           check_type(g, "C", g->c_type, true) &&
           (!g->other.block || check_type(g, "'other'", g->other_type, true)) &&
           (!g->extra.block || check_type(g, "'extra'", g->extra_type, true));
}

static bool check_affinity(const nn_gemm *g)
{
    if (g->epilogue != NN_GEMM_AFFINITY ||
        (g->extra.block && g->extra_type == NN_F32 && (g->n | g->c_stride | g->bias_stride) % 4 == 0))
        return true;
    return cs_fail("matrix product %s of %u x %u x %u: sums of an affinity need memory of f32 and columns and strides "
                   "in whole fours", g->label ? g->label : "", g->m, g->n, g->k);
}

static bool check(const nn_gemm *g)
{
    if ((g->groups || g->rows.block) && (nn_gemm_entries(g) > 1 || g->sum_batch))
        return cs_fail("matrix product: %s and a batch together", g->groups ? "groups" : "gathered rows");
    if (!check_types(g) || !check_affinity(g))
        return false;
    nn_gemm_extents e = nn_gemm_extents_of(g);
    return check_range(g, "A", g->a, e.a, g->a_type) && check_range(g, "B", g->b, e.b, g->b_type) &&
           check_range(g, "C", g->c, e.c, g->c_type) && check_range(g, "the bias", g->bias, e.bias, NN_F32) &&
           check_range(g, "'other'", g->other, nn_gemm_reads_other(g) ? e.c : 0, g->other_type) &&
           check_range(g, "'extra'", g->extra, g->extra.block ? nn_gemm_extra_elements(g, e.c) : 0, g->extra_type) &&
           check_range(g, "the list of rows", g->rows, e.rows, NN_I32) &&
           check_range(g, "the list of offsets", g->offsets, e.offsets, NN_I32);
}

/* ---- in parts ---------------------------------------------------------------------------------------------------- */

/* Makes `rest` add to what came before it. */
static bool continue_sum(nn_gemm *rest)
{
    if (rest->epilogue != NN_GEMM_NONE || rest->c_type != NN_F32)
        return cs_fail("matrix product %s of %u x %u x %u: a sum made in parts takes no epilogue and an f32 result",
                       rest->label ? rest->label : "", rest->m, rest->n, rest->k);
    rest->accumulate = true;
    rest->bias = (vk_range){0};
    return true;
}

static bool run_windows(vk_device *device, const nn_gemm *g, const nn_gemm_variant *v)
{
    uint32_t terms = nn_gemm_terms(vk_device_caps(device), g, v);
    nn_gemm rest = *g;
    if (terms < g->k && !continue_sum(&rest))
        return false;
    if (!nn_gemm_record(device, g, v, 0, terms))
        return false;
    for (uint32_t term = terms; term < g->k; term += terms)
        if (!nn_gemm_record(device, &rest, v, term, terms))
            return false;
    return true;
}

static bool fits(const vk_caps *caps, const nn_gemm *g, const nn_gemm_variant *v)
{
    uint64_t most = g->max_range ? g->max_range : caps->max_storage_range;
    nn_gemm_extents e = nn_gemm_extents_of(g);
    return e.c * nn_dtype_size(g->c_type) <= most && e.bias * 4 <= most && e.rows * 4 <= most &&
           (!g->other.block || e.c * nn_dtype_size(g->other_type) <= most) &&
           (!g->extra.block || nn_gemm_extra_elements(g, e.c) * nn_dtype_size(g->extra_type) <= most) &&
           (v->texel || (e.a * nn_dtype_size(g->a_type) <= most && e.b * nn_dtype_size(g->b_type) <= most));
}

static void skip(vk_range *range, enum nn_dtype type, uint64_t elements)
{
    if (range->block) {
        range->offset += elements * nn_dtype_size(type);
        range->size -= elements * nn_dtype_size(type);
    }
}

/* Drops the first `elements` of everything shaped like C. */
static void skip_outputs(nn_gemm *g, uint64_t elements)
{
    skip(&g->c, g->c_type, elements);
    skip(&g->other, g->other_type, elements);
    skip(&g->extra, g->extra_type, nn_gemm_extra_elements(g, elements));
}

/* Entries or groups in the first half: so many that what the second half takes of A, B and C begins where this device
 * can bind it. 0 where there are not several. */
static uint32_t first_entries(const vk_caps *caps, const nn_gemm *g)
{
    uint32_t count = g->groups ? g->groups : (uint32_t)nn_gemm_entries(g), step = 1;
    uint32_t align = caps->storage_align > caps->texel_align ? caps->storage_align : caps->texel_align;
    uint64_t bytes = (uint64_t)g->a_stride * nn_dtype_size(g->a_type);
    bytes |= (uint64_t)g->b_stride * nn_dtype_size(g->b_type);
    bytes |= (uint64_t)g->c_stride * nn_dtype_size(g->c_type);
    if (g->other.block)
        bytes |= (uint64_t)g->c_stride * nn_dtype_size(g->other_type);
    if (g->extra.block)
        bytes |= nn_gemm_extra_elements(g, g->c_stride) * nn_dtype_size(g->extra_type);
    while (bytes * step % align)
        step *= 2;
    return count / 2 / step ? count / 2 / step * step : count > step ? step : 0;
}

/* The two halves of a batch. */
static bool halve_batch(nn_gemm *first, nn_gemm *rest, uint32_t half)
{
    first->batch = half;
    rest->batch -= half;
    skip(&rest->a, rest->a_type, (uint64_t)half * rest->a_stride);
    skip(&rest->b, rest->b_type, (uint64_t)half * rest->b_stride);
    if (rest->sum_batch)
        return continue_sum(rest);
    skip_outputs(rest, (uint64_t)half * rest->c_stride);
    rest->first_group += half;
    return true;
}

/* The two halves of the groups. */
static bool halve_groups(nn_gemm *first, nn_gemm *rest, uint32_t half)
{
    first->groups = half;
    rest->groups -= half;
    rest->first_group += half;
    skip(&rest->b, rest->b_type, (uint64_t)half * rest->b_stride);
    skip_outputs(rest, (uint64_t)half * rest->c_stride);
    return true;
}

/* Rows of a half: any number of 64 rows keeps every alignment. */
static uint32_t half_of(uint32_t rows)
{
    return (rows / 2 + 63) / 64 * 64;
}

static bool halve_rows(nn_gemm *first, nn_gemm *rest)
{
    uint32_t half = half_of(first->m);
    first->m = half;
    rest->m -= half;
    if (rest->rows.block)
        skip(&rest->rows, NN_I32, half);
    else
        skip(&rest->a, rest->a_type, (uint64_t)half * rest->k);
    skip_outputs(rest, (uint64_t)half * rest->n);
    return true;
}

static bool halve_terms(nn_gemm *first, nn_gemm *rest)
{
    uint32_t half = half_of(first->k);
    first->k = half;
    rest->k -= half;
    skip(&rest->a, rest->a_type, (uint64_t)half * rest->m);
    if (rest->rows.block)
        skip(&rest->rows, NN_I32, half);
    else
        skip(&rest->b, rest->b_type, (uint64_t)half * rest->n);
    return continue_sum(rest);
}

static bool halve(const vk_caps *caps, const nn_gemm *g, nn_gemm *first, nn_gemm *rest)
{
    uint32_t half = first_entries(caps, g);
    if (half)
        return g->groups ? halve_groups(first, rest, half) : halve_batch(first, rest, half);
    if (!g->groups && nn_gemm_entries(g) == 1 && g->layout != NN_GEMM_TN && g->m > 64)
        return halve_rows(first, rest);
    if (!g->groups && nn_gemm_entries(g) == 1 && g->layout == NN_GEMM_TN && g->k > 64)
        return halve_terms(first, rest);
    return cs_fail("matrix product %s of %u x %u x %u: a matrix is larger than the %llu bytes that this device binds",
                   g->label ? g->label : "", g->m, g->n, g->k, (unsigned long long)caps->max_storage_range);
}

static bool run(vk_device *device, const nn_gemm *g);

static bool run_halves(vk_device *device, const nn_gemm *g)
{
    nn_gemm first = *g, rest = *g;
    return halve(vk_device_caps(device), g, &first, &rest) && run(device, &first) && run(device, &rest);
}

static bool run(vk_device *device, const nn_gemm *g)
{
    const vk_caps *caps = vk_device_caps(device);
    if (g->m == 0 || g->n == 0)
        return true;
    const nn_gemm_variant *v = check(g) ? nn_gemm_choose(device, g) : NULL;
    if (!v)
        return false;
    return fits(caps, g, v) ? run_windows(device, g, v) : run_halves(device, g);
}

/* ---- sums side by side ------------------------------------------------------------------------------------------- */

/* A small result of long sums, as the gradient of a router's gate is, keeps few workgroups busy for long: on a GPU
 * parts of the sums are made side by side. */
static uint32_t parts_of(const vk_caps *caps, const nn_gemm *g)
{
    enum { SIDE = 32, ENOUGH = 256, FEWEST_TERMS = 128 }; /* of a tile; tiles that keep a GPU busy; of a part */
    uint64_t tiles = (uint64_t)((g->m + SIDE - 1) / SIDE) * ((g->n + SIDE - 1) / SIDE);
    bool plain = tiles && g->layout == NN_GEMM_TN && !g->groups && !g->rows.block && nn_gemm_entries(g) == 1 &&
                 g->epilogue == NN_GEMM_NONE && !g->bias.block && g->c_type == NN_F32;
    if (plain && g->parts)
        return g->parts;
    uint32_t parts = 1;
    if (!plain || g->variant || caps->type == VK_TYPE_CPU)
        return parts;
    while (tiles * parts < ENOUGH && g->k % (2 * parts) == 0 && g->k / (2 * parts) >= FEWEST_TERMS)
        parts *= 2;
    return parts;
}

static bool run_parts(vk_device *device, const nn_gemm *g, uint32_t parts)
{
    nn_gemm part = *g;
    uint64_t elements = (uint64_t)g->m * g->n;
    part.c = vk_alloc(device, parts * elements * 4, VK_MEMORY_DEVICE, "parts of a matrix product");
    part.k = g->k / parts;
    part.batch = parts;
    part.a_stride = part.k * g->m;
    part.b_stride = part.k * g->n;
    part.c_stride = (uint32_t)elements;
    part.accumulate = false;
    part.other = part.extra = (vk_range){0};
    const nn_bias_sum sum = {.rows = parts, .columns = (uint32_t)elements, .in = part.c, .in_type = NN_F32, .out = g->c,
                             .accumulate = g->accumulate, .label = g->label};
    bool ok = part.c.block && run(device, &part) && nn_bias_sum_run(device, &sum);
    vk_free(device, &part.c);
    return ok;
}

static nn_gemm_observer *observe;
static void *observe_with;

void nn_gemm_observe(nn_gemm_observer *observer, void *with)
{
    observe = observer;
    observe_with = with;
}

bool nn_gemm_run(vk_device *device, const nn_gemm *g)
{
    if (observe)
        observe(observe_with, g);
    uint32_t parts = parts_of(vk_device_caps(device), g);
    return parts > 1 ? check(g) && run_parts(device, g, parts) : run(device, g);
}
