#include "nn/gemm_check.h"

#include <math.h>
#include <stdlib.h>

#include "base/memory.h"
#include "nn/bench.h"
#include "nn/dtype.h"
#include "nn/gemm_internal.h"

/* ---- comparing --------------------------------------------------------------------------------------------------- */

enum { PART = 1 << 18 }; /* elements read at once */

/* Two results, a part at a time. */
typedef struct parts {
    float got[PART], expected[PART];
    uint16_t halves[PART]; /* as read, where the values have 16 bits */
} parts;

static bool read_part(vk_device *device, vk_range range, enum nn_dtype type, uint64_t from, uint64_t count, parts *p,
                      float *values)
{
    uint64_t size = nn_dtype_size(type), bytes = (count * size + 3) / 4 * 4;
    vk_range part = {range.block, range.offset + from * size, bytes};
    if (!nn_is_half(type))
        return vk_read(device, part, values, bytes);
    if (!vk_read(device, part, p->halves, bytes))
        return false;
    nn_widen(type, p->halves, count, values);
    return true;
}

static double relative(double got, double expected, double typical)
{
    if (got == expected)
        return 0;
    double x = fabs(got - expected) / (fabs(expected) + typical);
    return isfinite(x) && isfinite(typical) ? x : INFINITY;
}

static bool add_squares(vk_device *device, vk_range range, enum nn_dtype type, uint64_t elements, parts *p,
                        double *sum)
{
    for (uint64_t from = 0; from < elements; from += PART) {
        uint64_t count = elements - from < PART ? elements - from : PART;
        if (!read_part(device, range, type, from, count, p, p->expected))
            return false;
        for (uint64_t i = 0; i < count; i++)
            *sum += (double)p->expected[i] * p->expected[i];
    }
    return true;
}

static bool find_largest(vk_device *device, vk_range got, vk_range expected, enum nn_dtype type, uint64_t elements,
                         double typical, parts *p, double *largest)
{
    for (uint64_t from = 0; from < elements; from += PART) {
        uint64_t count = elements - from < PART ? elements - from : PART;
        if (!read_part(device, got, type, from, count, p, p->got) ||
            !read_part(device, expected, type, from, count, p, p->expected))
            return false;
        for (uint64_t i = 0; i < count; i++)
            *largest = fmax(*largest, relative(p->got[i], p->expected[i], typical));
    }
    return true;
}

bool nn_gemm_difference(vk_device *device, vk_range got, vk_range expected, enum nn_dtype type, uint64_t elements,
                        double *difference)
{
    parts *p = cs_alloc(1, sizeof *p, "two results of a matrix product");
    double squares = 0;
    *difference = 0;
    bool ok = p && add_squares(device, expected, type, elements, p, &squares) &&
              find_largest(device, got, expected, type, elements, sqrt(squares / (double)elements), p, difference);
    free(p);
    return ok;
}

/* Every addition may be off by a unit in the last place of a sum that is as large as the result: matrix hardware cuts
 * off where others round, so that errors do not cancel. Beyond some length they have room enough. One term of random
 * values left out makes 1 / sqrt(terms), which is more. A value next to a tie of its type may go either way. */
double nn_gemm_rounding(uint32_t terms, enum nn_dtype type)
{
    enum { LONGEST = 1 << 14 };
    double stored = type == NN_F16 ? 0x1p-10 : type == NN_BF16 ? 0x1p-7 : 0;
    return 1e-5 + 0x1p-23 * (terms < LONGEST ? terms : LONGEST) + stored;
}

/* ---- one product ------------------------------------------------------------------------------------------------- */

/* Into `c`, which holds something finite before, in every type, and nothing that was right: an element that the variant
 * leaves out shows. */
static bool make(vk_device *device, const nn_gemm *product, const char *variant, vk_range c)
{
    enum { TWO_ONES = 0x3c003c00 }; /* as f16 */
    nn_gemm g = *product;
    g.variant = variant;
    g.c = c;
    if (g.other.block)
        g.other = c;
    return vk_fill(device, c, TWO_ONES) && nn_gemm_run(device, &g);
}

static bool begin(vk_device *device, nn_gemm_trial *t)
{
    t->g.c.size = (nn_gemm_extents_of(&t->g).c * nn_dtype_size(t->g.c_type) + 3) / 4 * 4;
    t->expected = vk_alloc(device, t->g.c.size, VK_MEMORY_DEVICE, "comparing matrix products");
    return t->expected.block && make(device, &t->g, nn_gemm_plainest()->name, t->expected);
}

static bool compare(vk_device *device, const nn_gemm_trial *t, const char *variant, bool *agrees)
{
    const nn_gemm *g = &t->g;
    double difference;
    if (!make(device, g, variant, g->c) ||
        !nn_gemm_difference(device, g->c, t->expected, g->c_type, nn_gemm_extents_of(g).c, &difference))
        return false;
    *agrees = difference <= nn_gemm_rounding(g->k, g->c_type);
    return true;
}

/* ---- thoroughly -------------------------------------------------------------------------------------------------- */

uint32_t nn_gemm_check_tokens(uint32_t tokens)
{
    enum { HIGHEST_TILE = 128 };
    return (tokens + HIGHEST_TILE - 1) / HIGHEST_TILE * HIGHEST_TILE;
}

static uint32_t tokens_of(const nn_gemm *g)
{
    return g->layout == NN_GEMM_TN ? g->k : g->m;
}

static void set_tokens(nn_gemm *g, uint32_t tokens)
{
    *(g->layout == NN_GEMM_TN ? &g->k : &g->m) = tokens;
}

/* The last row first. */
static bool upload_reversed(vk_device *device, vk_range range, uint32_t count)
{
    int32_t *rows = cs_alloc(count, sizeof *rows, "comparing matrix products");
    for (uint32_t i = 0; rows && i < count; i++)
        rows[i] = (int32_t)(count - 1 - i);
    bool ok = rows && vk_upload(device, range, rows, 4ull * count);
    free(rows);
    return ok;
}

/* The first group has one row more than its share, so that the others begin beside where tiles do. */
static bool upload_uneven(vk_device *device, vk_range range, uint32_t rows, uint32_t groups)
{
    int32_t offsets[NN_BENCH_GROUPS + 1];
    for (uint32_t e = 0; e <= groups; e++) {
        uint32_t even = (uint32_t)((uint64_t)rows * e / groups);
        offsets[e] = (int32_t)(e == 0 || even == rows ? even : even + 1);
    }
    return vk_upload(device, range, offsets, 4ull * (groups + 1));
}

static vk_range list_of(vk_device *device, uint32_t count)
{
    return vk_alloc(device, 4ull * count, VK_MEMORY_DEVICE, "comparing matrix products");
}

static void free_lists(nn_gemm_check *check)
{
    vk_free(check->device, &check->offsets);
    vk_free(check->device, &check->rows);
    vk_free(check->device, &check->bias);
}

static bool make_lists(nn_gemm_check *check, const nn_gemm *g)
{
    vk_device *device = check->device;
    if (check->bias.block)
        return true;
    check->rows = list_of(device, tokens_of(g));
    check->offsets = list_of(device, g->groups + 1);
    check->bias = list_of(device, g->n);
    bool ok = check->rows.block && check->offsets.block && check->bias.block &&
              upload_reversed(device, check->rows, tokens_of(g)) &&
              (!g->groups || upload_uneven(device, check->offsets, tokens_of(g), g->groups)) &&
              nn_bench_fill(device, check->bias, NN_F32, g->n, 3);
    if (!ok)
        free_lists(check);
    return ok;
}

static void dress(const nn_gemm_check *check, nn_gemm *g)
{
    g->c_type = g->other_type = g->n % 2 == 0 ? g->a_type : NN_F32;
    g->epilogue = NN_GEMM_ADD;
    g->other = g->c;
    g->bias = check->bias;
    g->rows = check->rows;
}

static bool check_thoroughly(nn_gemm_check *check, const char *variant, bool *agrees)
{
    nn_gemm whole = check->plain.g, ragged = whole, dressed;
    if (!whole.groups) {
        set_tokens(&whole, nn_gemm_check_tokens(tokens_of(&whole)));
        set_tokens(&ragged, tokens_of(&whole) - 1);
    }
    if (!make_lists(check, &ragged))
        return false;
    if (ragged.groups)
        ragged.offsets = check->offsets;
    dressed = ragged;
    dress(check, &dressed);
    const nn_gemm *products[] = {&whole, &ragged, &dressed};
    bool ok = true;
    for (size_t i = 0; ok && *agrees && i < sizeof products / sizeof *products; i++) {
        nn_gemm_trial t = {.g = *products[i]};
        ok = begin(check->device, &t) && compare(check->device, &t, variant, agrees);
        vk_free(check->device, &t.expected);
    }
    return ok;
}

/* ---- a check ----------------------------------------------------------------------------------------------------- */

bool nn_gemm_check_begin(nn_gemm_check *check, vk_device *device, const nn_gemm *g)
{
    *check = (nn_gemm_check){.device = device, .plain = {.g = *g}};
    return begin(device, &check->plain);
}

bool nn_gemm_check_variant(nn_gemm_check *check, const char *variant, bool thorough, bool *agrees)
{
    return compare(check->device, &check->plain, variant, agrees) &&
           (!*agrees || !thorough || check_thoroughly(check, variant, agrees));
}

void nn_gemm_check_end(nn_gemm_check *check)
{
    vk_free(check->device, &check->plain.expected);
    free_lists(check);
}
