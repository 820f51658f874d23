/* Plain and grouped matrix products. */
#include "nn/bench.h"

#include "base/error.h"
#include "nn/gemm_internal.h"

typedef struct product {
    vk_device *device;
    nn_gemm g;
} product;

static bool run(void *with)
{
    product *p = with;
    return nn_gemm_run(p->device, &p->g);
}

/* Offsets of `groups` even shares of `rows`. */
static bool upload_offsets(vk_device *device, vk_range range, uint32_t rows, uint32_t groups)
{
    int32_t offsets[NN_BENCH_GROUPS + 1];
    for (uint32_t e = 0; e <= groups; e++)
        offsets[e] = (int32_t)((uint64_t)rows * e / groups);
    range.size = 4 * (groups + 1);
    return vk_upload(device, range, offsets, range.size);
}

static nn_gemm shape_of(const nn_bench_product *p)
{
    nn_gemm g = {.layout = p->layout, .m = p->m, .n = p->n, .k = p->k, .groups = p->groups,
                 .a_type = p->type, .b_type = p->type};
    if (p->groups) {
        g.b_stride = p->layout == NN_GEMM_TN ? 0 : p->n * p->k;
        g.c_stride = p->layout == NN_GEMM_TN ? p->m * p->n : 0;
    }
    return g;
}

static bool make(product *p, const nn_bench_product *shape, nn_timing *t)
{
    const bool tn = shape->layout == NN_GEMM_TN;
    const uint64_t groups = shape->groups ? shape->groups : 1;
    const uint64_t a = (uint64_t)shape->m * shape->k, b = (uint64_t)shape->n * shape->k * (tn ? 1 : groups),
                   c = (uint64_t)shape->m * shape->n * (tn ? groups : 1);
    const uint64_t size = nn_dtype_size(shape->type);
    nn_gemm *g = &p->g;
    g->a = vk_alloc(p->device, a * size, VK_MEMORY_DEVICE, "a benchmark");
    g->b = vk_alloc(p->device, b * size, VK_MEMORY_DEVICE, "a benchmark");
    g->c = vk_alloc(p->device, c * 4, VK_MEMORY_DEVICE, "a benchmark");
    if (shape->groups)
        g->offsets = vk_alloc(p->device, 4 * (groups + 1), VK_MEMORY_DEVICE, "a benchmark");
    t->flops = 2.0 * shape->m * shape->n * shape->k;
    t->bytes = (double)((a + b) * size + c * 4);
    return g->a.block && g->b.block && g->c.block &&
           nn_bench_fill(p->device, g->a, shape->type, a, 1) && nn_bench_fill(p->device, g->b, shape->type, b, 2) &&
           (!shape->groups || (g->offsets.block && upload_offsets(p->device, g->offsets, tn ? g->k : g->m, g->groups)));
}

static void release(product *p)
{
    vk_free(p->device, &p->g.a);
    vk_free(p->device, &p->g.b);
    vk_free(p->device, &p->g.c);
    vk_free(p->device, &p->g.offsets);
}

static bool failed(const nn_bench_product *shape)
{
    return cs_fail_in("benchmark of a product of %u x %u x %u", shape->m, shape->n, shape->k);
}

bool nn_bench_gemm(const nn_bench *b, const nn_bench_product *shape, nn_timing *t)
{
    product p = {b->device, shape_of(shape)};
    *t = (nn_timing){0};
    bool ok = make(&p, shape, t) && nn_bench_device_time(b, run, &p, t);
    release(&p);
    return ok || failed(shape);
}

/* Puts a time where it belongs. */
static void enter(nn_bench_contest *c, const char *variant, double ns)
{
    int at = c->count++;
    for (; at > 0 && c->times[at - 1].ns > ns; at--)
        c->times[at] = c->times[at - 1];
    c->times[at].variant = variant;
    c->times[at].ns = ns;
}

static bool time_variants(const nn_bench *b, product *p, nn_bench_contest *c)
{
    const nn_gemm_variant *taken = nn_gemm_choose(b->device, &p->g);
    if (!taken)
        return false;
    c->taken = taken->name;
    for (int i = 0; nn_gemm_variant_name(i) && c->count < NN_BENCH_VARIANTS; i++) {
        nn_timing t = {0};
        p->g.variant = nn_gemm_variant_name(i);
        if (!nn_gemm_variant_suits(b->device, p->g.variant, &p->g))
            continue;
        if (!nn_bench_device_time(b, run, p, &t))
            return false;
        enter(c, p->g.variant, t.median);
    }
    return true;
}

bool nn_bench_variants(const nn_bench *b, const nn_bench_product *shape, nn_bench_contest *contest)
{
    product p = {b->device, shape_of(shape)};
    nn_timing t;
    *contest = (nn_bench_contest){.product = *shape};
    bool ok = make(&p, shape, &t) && time_variants(b, &p, contest);
    if (!ok)
        contest->count = 0;
    release(&p);
    return ok || failed(shape);
}
