/* The variants whose workgroups make tiles of C together: which tiles a device can run, how they are specialized. */
#include "nn/gemm_internal.h"

/* What the kernels of cooperative matrices have beyond the constants of all; gemm_coopmat2 has no SPEC_COLUMNS. */
enum { SPEC_COLUMNS = NN_GEMM_SPECS, SPEC_ALIGNED, SPECS };

/* ---- in common --------------------------------------------------------------------------------------------------- */

/* Elements of a chunk of 16 bytes, in which operands are loaded. */
static uint32_t chunk_of(enum nn_dtype type)
{
    return nn_is_half(type) ? 8 : 4;
}

/* Whether no chunk of the operand starts at other than a multiple of 16 bytes, nor crosses the end of a line. */
static bool aligned(vk_range range, enum nn_dtype type, uint32_t line, uint32_t stride)
{
    return range.offset % 16 == 0 && (line | stride) % chunk_of(type) == 0;
}

static bool both_aligned(const nn_gemm *g)
{
    return aligned(g->a, g->a_type, g->layout == NN_GEMM_TN ? g->m : g->k, g->a_stride) &&
           aligned(g->b, g->b_type, g->layout == NN_GEMM_NT ? g->k : g->n, g->b_stride);
}

static uint64_t tiles_of(const nn_gemm *g, const nn_gemm_variant *v)
{
    uint64_t copies = g->sum_batch ? 1 : g->groups && g->layout == NN_GEMM_TN ? g->groups : nn_gemm_entries(g);
    return copies * ((g->m + v->height - 1) / v->height) * ((g->n + v->width - 1) / v->width);
}

/* Large tiles read least, but leave part of a device idle where there are less than one and a half for each core. */
bool nn_gemm_tiles_pay(const vk_caps *caps, const nn_gemm_variant *v, const nn_gemm *g)
{
    enum { USUAL = 43 }; /* cores of a device that does not say */
    uint64_t cores = caps->cores ? caps->cores : USUAL;
    return v->height == 32 || 2 * tiles_of(g, v) >= 3 * cores;
}

/* ---- gemm_tiled -------------------------------------------------------------------------------------------------- */

static uint32_t tiled_invocations(const nn_gemm_variant *v)
{
    return v->height / v->rows * (v->width / v->columns);
}

/* Two slices of each operand as f32; see the shader. */
static uint32_t tiled_shared(const nn_gemm_variant *v)
{
    return 2 * v->depth * (v->height + 4 + v->width + 4) * 4;
}

bool nn_gemm_tiled_suits(const vk_caps *caps, const nn_gemm_variant *v, const nn_gemm *g)
{
    (void)g;
    return tiled_invocations(v) <= caps->max_invocations && tiled_shared(v) <= caps->max_shared_bytes;
}

void nn_gemm_tiled_specialize(const vk_caps *caps, const nn_gemm_variant *v, const nn_gemm *g, vk_dispatch *d)
{
    (void)caps;
    const uint32_t spec[] = {tiled_invocations(v), g->layout, v->height, v->width, v->depth, v->rows, v->columns,
                             both_aligned(g)};
    for (uint32_t i = 0; i < sizeof spec / sizeof *spec; i++)
        d->spec[i] = spec[i];
}

/* ---- gemm_coopmat ------------------------------------------------------------------------------------------------ */

/* How a tile is shared out among the subgroups of a workgroup. */
typedef struct parts {
    uint32_t invocations, subgroup, rows, columns; /* of each subgroup's part */
} parts;

/* As square as can be, and as many columns of parts as rows or twice as many. The smallest subgroup is the one that
 * drivers with a choice make cooperative matrices for (Intel's), or multiply as fast as larger ones. */
static parts parts_of(const vk_caps *caps, const nn_gemm_variant *v)
{
    parts p = {.invocations = v->invocations, .subgroup = caps->subgroup_min};
    uint32_t subgroups = p.invocations / p.subgroup, down = 1;
    while (down * down * 4 <= subgroups)
        down *= 2;
    p.rows = v->height / down;
    p.columns = subgroups ? v->width / (subgroups / down) : 0;
    return p;
}

/* The 16-bit type of the products; an operand of f32 beside one of 16 bits is rounded to it, if it may be. NN_F32 for
 * none. */
static enum nn_dtype product_type(const nn_gemm *g)
{
    bool both = nn_is_half(g->a_type) && nn_is_half(g->b_type);
    if (g->a_type != g->b_type && (both || g->exact))
        return NN_F32;
    return nn_is_half(g->a_type) ? g->a_type : g->b_type;
}

static const char *matrix_kernel(enum nn_dtype type)
{
    return type == NN_BF16 ? "gemm_coopmat_bf16" : "gemm_coopmat_f16";
}

/* Two slices of each operand and a matrix of sums for each part; see the shader. */
static uint32_t matrix_shared(const nn_gemm_variant *v, const nn_gemm *g, const parts *p, const vk_matrix_shape *s)
{
    uint32_t a = g->layout == NN_GEMM_TN ? v->depth * (v->height + 8) : v->height * (v->depth + 8);
    uint32_t b = g->layout == NN_GEMM_NT ? v->width * (v->depth + 8) : v->depth * (v->width + 8);
    return 2 * (a + b) * 2 + p->invocations / p->subgroup * s->m * s->n * 4;
}

bool nn_gemm_matrix_suits(const vk_caps *caps, const nn_gemm_variant *v, const nn_gemm *g)
{
    enum nn_dtype type = product_type(g);
    const vk_matrix_shape *s = nn_is_half(type) ? vk_matrix_find(caps, type == NN_BF16) : NULL;
    if (!s || !vk_has_kernel(matrix_kernel(type)) || v->invocations > caps->max_invocations)
        return false;
    parts p = parts_of(caps, v);
    return p.columns && p.rows % s->m == 0 && p.columns % s->n == 0 && v->depth % s->k == 0 &&
           matrix_shared(v, g, &p, s) <= caps->max_shared_bytes;
}

void nn_gemm_matrix_specialize(const vk_caps *caps, const nn_gemm_variant *v, const nn_gemm *g, vk_dispatch *d)
{
    enum nn_dtype type = product_type(g);
    const vk_matrix_shape *s = vk_matrix_find(caps, type == NN_BF16);
    parts p = parts_of(caps, v);
    d->kernel = matrix_kernel(type);
    d->subgroup = p.subgroup;
    const uint32_t spec[] = {p.invocations, g->layout, v->height, v->width, v->depth, s->m, s->n, s->k, p.rows};
    for (uint32_t i = 0; i < sizeof spec / sizeof *spec; i++)
        d->spec[i] = spec[i];
    d->spec[SPEC_COLUMNS] = p.columns;
    d->spec[SPEC_ALIGNED] = both_aligned(g);
    d->specs = SPECS;
}

/* ---- gemm_coopmat2 ----------------------------------------------------------------------------------------------- */

static const char *workgroup_kernel(enum nn_dtype type)
{
    return type == NN_BF16 ? "gemm_coopmat2_bf16" : "gemm_coopmat2_f16";
}

/* Whether the device has matrices of this tile's sizes for this many invocations. */
static bool has_grain(const vk_caps *caps, const nn_gemm_variant *v, bool bfloat16)
{
    for (uint32_t i = 0; i < caps->matrix2_count; i++) {
        const vk_matrix_grain *s = &caps->matrix2[i];
        if (s->bfloat16 == bfloat16 && s->invocations == v->invocations && v->height % s->m == 0 &&
            v->width % s->n == 0 && v->depth % s->k == 0)
            return true;
    }
    return false;
}

/* Rows of sums for which there is room beside what the driver takes of shared memory, as many as pay; 0: too few. For
 * each band of them every invocation goes through all of its sums. */
static uint32_t band_rows(const vk_caps *caps, const nn_gemm_variant *v)
{
    enum { MOST = 32, FEWEST = 8 };
    for (uint32_t rows = MOST; rows >= FEWEST; rows /= 2)
        if (rows * v->width * 4 + caps->matrix2_shared_bytes <= caps->max_shared_bytes)
            return rows;
    return 0;
}

/* Tensors begin at a multiple of 16 bytes, so an entry or group must; decode functions have no such rule. */
static bool starts_aligned(vk_range range, enum nn_dtype type, uint32_t stride, bool gathered)
{
    return !nn_is_half(type) || gathered || (range.offset % 16 == 0 && stride % 8 == 0);
}

bool nn_gemm_workgroup_suits(const vk_caps *caps, const nn_gemm_variant *v, const nn_gemm *g)
{
    enum nn_dtype type = product_type(g);
    bool gather_a = g->rows.block && g->layout != NN_GEMM_TN, gather_b = g->rows.block && g->layout == NN_GEMM_TN;
    return nn_is_half(type) && vk_has_kernel(workgroup_kernel(type)) && has_grain(caps, v, type == NN_BF16) &&
           v->height <= caps->matrix2_max_size && v->width <= caps->matrix2_max_size &&
           v->depth <= caps->matrix2_max_size && v->invocations <= caps->max_invocations &&
           band_rows(caps, v) && starts_aligned(g->a, g->a_type, g->a_stride, gather_a) &&
           starts_aligned(g->b, g->b_type, g->b_stride, gather_b);
}

/* Whether no tile reaches beyond an edge of A or B. */
static bool whole_tiles(const nn_gemm_variant *v, const nn_gemm *g)
{
    return !g->groups && g->m % v->height == 0 && g->n % v->width == 0 && g->k % v->depth == 0;
}

void nn_gemm_workgroup_specialize(const vk_caps *caps, const nn_gemm_variant *v, const nn_gemm *g, vk_dispatch *d)
{
    enum { CLAMP_UNDEFINED, CLAMP_CONSTANT }; /* gl_CooperativeMatrixClampMode...NV */
    uint32_t a_line = g->layout == NN_GEMM_TN ? g->m : g->k, b_line = g->layout == NN_GEMM_NT ? g->k : g->n;
    d->kernel = workgroup_kernel(product_type(g));
    const uint32_t spec[] = {v->invocations, g->layout, v->height, v->width, v->depth,
                             whole_tiles(v, g) ? CLAMP_UNDEFINED : CLAMP_CONSTANT, band_rows(caps, v)};
    for (uint32_t i = 0; i < sizeof spec / sizeof *spec; i++)
        d->spec[i] = spec[i];
    d->spec[SPEC_ALIGNED] = (a_line | b_line) % 8 == 0;
    d->specs = SPECS;
}
