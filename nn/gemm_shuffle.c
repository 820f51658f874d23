/* The variants of gemm_shuffle.comp, for CPU drivers: where they can run, how they are specialized. */
#include <string.h>

#include "nn/gemm_internal.h"

enum { SPEC_AHEAD = NN_GEMM_SPECS, SPEC_WHOLE, SPEC_COLUMNS, SPEC_LAST, SPECS };

bool nn_texel_fits(const vk_caps *caps, vk_range range, uint64_t bytes)
{
    return range.offset % caps->texel_align == 0 && bytes % 16 == 0 && bytes / 16 <= caps->max_texel_elements;
}

uint64_t nn_texel_bytes(uint64_t elements, enum nn_dtype type)
{
    return (elements * nn_dtype_size(type) + 15) / 16 * 16;
}

/* The wide one reads C and `other` as texels too. */
bool nn_gemm_shuffle_suits(const vk_caps *caps, const nn_gemm_variant *v, const nn_gemm *g)
{
    nn_gemm_extents e = nn_gemm_extents_of(g);
    if (v->wide && !(caps->int64 && nn_texel_fits(caps, g->c, nn_texel_bytes(e.c, g->c_type)) &&
                     nn_texel_fits(caps, g->other, nn_texel_bytes(e.c, g->other_type))))
        return false;
    return caps->type == VK_TYPE_CPU && caps->subgroup_shuffle && v->height % caps->subgroup_size == 0 && g->m &&
           nn_texel_fits(caps, g->a, nn_texel_bytes(e.a, g->a_type)) &&
           nn_texel_fits(caps, g->b, nn_texel_bytes(e.b, g->b_type));
}

/* NT with rows of B of whole pages: all their beginnings share one place of a CPU's first cache, so that a turn had
 * better take whole lines of them. See terms_of_turn(). */
static bool rows_collide(const nn_gemm *g)
{
    enum { PAGE = 4096 };
    return g->layout == NN_GEMM_NT && g->k * nn_dtype_size(g->b_type) % PAGE == 0;
}

bool nn_gemm_shuffle_tall_pays(const vk_caps *caps, const nn_gemm_variant *v, const nn_gemm *g)
{
    enum { MOST_TERMS = 384, FEWEST_ROWS = 128, FEW = 16 };
    enum { WORTH_COMPILING = 1 << 20 }; /* multiply-adds */
    (void)caps;
    if (nn_gemm_entries(g) * g->m * g->n * g->k < WORTH_COMPILING)
        return false;
    if (rows_collide(g) || (g->layout == NN_GEMM_NN && g->k > MOST_TERMS))
        return false;
    if (g->layout != NN_GEMM_TN && g->groups)
        return g->m / g->groups >= FEWEST_ROWS;
    uint32_t beyond_edge = (v->height - g->m % v->height) % v->height;
    return beyond_edge <= g->m / FEW;
}

/* Whether all of these lengths and distances are whole texels. */
static bool texel_aligned(enum nn_dtype type, uint32_t row, uint32_t stride)
{
    return (row | stride) % (16 / nn_dtype_size(type)) == 0;
}

/* Whether rows of C and of all that is shaped like it are whole eights. */
static bool stores_eights(const nn_gemm_variant *v, const nn_gemm *g)
{
    return v->wide && (g->n | g->c_stride | g->bias_stride) % 8 == 0;
}

/* A lane's columns in the last tile of a row: as few as do, since those beyond the end are computed for nothing. */
static uint32_t last_columns(const vk_caps *caps, const nn_gemm_variant *v, const nn_gemm *g)
{
    enum { STORED = 8 }; /* columns at once */
    uint32_t lanes = caps->subgroup_size, rest = g->n % (v->columns * lanes), columns = v->columns;
    if (rest && stores_eights(v, g))
        while (columns / 2 * lanes >= rest && columns / 2 * lanes >= STORED)
            columns /= 2;
    return columns;
}

bool nn_gemm_makes_rows(const vk_caps *caps, const nn_gemm_variant *v, const nn_gemm *g)
{
    enum { CACHE = 320 << 10 }; /* of a core's second one, what B may take beside A and C */
    uint64_t sums = g->groups && g->layout == NN_GEMM_TN ? g->groups : 1;
    /* There A's rows leave the first cache from tile to tile. */
    bool tall_tn = g->layout == NN_GEMM_TN && v->height == NN_GEMM_TALL;
    bool narrow = v->texel && !tall_tn && last_columns(caps, v, g) < v->columns;
    return g->n * (g->k / sums) * nn_dtype_size(g->b_type) <= (narrow ? 2 * CACHE : CACHE);
}

/* Long rows of A and B map to few places of a CPU's cache: there a turn takes whole lines of them, unless that makes
 * more code than is cached. Tall tiles, whose code is long already, gain more by sharing B than they lose so, but for
 * whole pages; see rows_collide(). */
static uint32_t terms_of_turn(const nn_gemm_variant *v, const nn_gemm *g, bool narrow)
{
    enum { LONG_ROW = 2048 };
    bool lines = g->layout == NN_GEMM_NT && g->k * nn_dtype_size(g->b_type) >= LONG_ROW;
    return lines && !narrow && v->height < NN_GEMM_TALL ? 16 : 8;
}

void nn_gemm_shuffle_specialize(const vk_caps *caps, const nn_gemm_variant *v, const nn_gemm *g, vk_dispatch *d)
{
    enum { SUMS_IN_REGISTERS = 5 };      /* fours, beside what else a CPU's registers have to hold */
    bool whole_rows = d->groups[0] == 1; /* of tiles, by each workgroup */
    uint32_t last = whole_rows ? last_columns(caps, v, g) : v->columns;
    uint32_t terms = terms_of_turn(v, g, last < v->columns);
    const uint32_t spec[] = {
        caps->subgroup_size,
        g->layout,
        v->height,
        SUMS_IN_REGISTERS,
        terms,
        texel_aligned(g->a_type, g->layout == NN_GEMM_TN ? g->m : g->k, g->a_stride),
        texel_aligned(g->b_type, g->layout == NN_GEMM_NT ? g->k : g->n, g->b_stride),
        stores_eights(v, g),
        g->layout == NN_GEMM_NN && !nn_gemm_makes_rows(caps, v, g),
    };
    memcpy(d->spec, spec, sizeof spec);
    d->spec[SPEC_AHEAD] = v->wide && whole_rows;
    d->spec[SPEC_WHOLE] = g->k % terms == 0 && !(g->groups && g->layout == NN_GEMM_TN);
    bool several = g->n > last * caps->subgroup_size;
    d->spec[SPEC_COLUMNS] = several ? v->columns : last;
    d->spec[SPEC_LAST] = last;
    d->specs = SPECS;
    if (several && last < v->columns)
        d->kernel = "gemm_shuffle_last";
    d->subgroup = caps->subgroup_control ? caps->subgroup_size : 0;
}
