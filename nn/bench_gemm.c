/* Plain and grouped matrix products. */
#include "nn/bench.h"

#include "base/error.h"
#include "base/log.h"
#include "nn/gemm_check.h"
#include "nn/gemm_internal.h"

/* Products over operands that they share, each as long as the one that needs most of it. */
typedef struct products {
    vk_device *device;
    vk_range a, b, c;
    nn_gemm g[NN_BENCH_PRODUCTS];
    int count;
} products;

typedef struct product {
    vk_device *device;
    nn_gemm *g;
} product;

static bool run(void *with)
{
    const product *p = with;
    return nn_gemm_run(p->device, p->g);
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
    if (p->batch) {
        g.batch = p->batch;
        g.a_stride = p->m * p->k;
        g.b_stride = p->n * p->k;
        g.c_stride = p->m * p->n;
    } else if (p->groups) {
        g.b_stride = p->layout == NN_GEMM_TN ? 0 : p->n * p->k;
        g.c_stride = p->layout == NN_GEMM_TN ? p->m * p->n : 0;
    }
    return g;
}

typedef struct counts {
    uint64_t a, b, c; /* elements */
} counts;

static counts counts_of(const nn_bench_product *p)
{
    const bool tn = p->layout == NN_GEMM_TN;
    const uint64_t groups = p->groups ? p->groups : 1, batch = p->batch ? p->batch : 1;
    return (counts){batch * p->m * p->k, batch * p->n * p->k * (tn ? 1 : groups),
                    batch * p->m * p->n * (tn ? groups : 1)};
}

static uint64_t larger(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static bool make_operands(products *p, enum nn_dtype type, const counts *most)
{
    const uint64_t size = nn_dtype_size(type);
    p->a = vk_alloc(p->device, most->a * size, VK_MEMORY_DEVICE, "a benchmark");
    p->b = vk_alloc(p->device, most->b * size, VK_MEMORY_DEVICE, "a benchmark");
    p->c = vk_alloc(p->device, most->c * 4, VK_MEMORY_DEVICE, "a benchmark");
    return p->a.block && p->b.block && p->c.block && nn_bench_fill(p->device, p->a, type, most->a, 1) &&
           nn_bench_fill(p->device, p->b, type, most->b, 2);
}

static bool make_offsets(vk_device *device, nn_gemm *g)
{
    if (!g->groups)
        return true;
    g->offsets = vk_alloc(device, 4 * ((uint64_t)g->groups + 1), VK_MEMORY_DEVICE, "a benchmark");
    return g->offsets.block && upload_offsets(device, g->offsets, g->layout == NN_GEMM_TN ? g->k : g->m, g->groups);
}

static bool make(products *p, const nn_bench_product *shapes, int count, nn_timing *t)
{
    const uint64_t size = nn_dtype_size(shapes->type);
    counts most = {0};
    for (int i = 0; i < count; i++) {
        counts n = counts_of(&shapes[i]);
        most = (counts){larger(most.a, n.a), larger(most.b, n.b), larger(most.c, n.c)};
        p->g[p->count++] = shape_of(&shapes[i]);
        t[i] = (nn_timing){.flops = 2.0 * shapes[i].m * shapes[i].n * shapes[i].k * (double)nn_gemm_entries(&p->g[i]),
                           .bytes = (double)((n.a + n.b) * size + n.c * 4)};
    }
    if (!make_operands(p, shapes->type, &most))
        return false;
    for (int i = 0; i < count; i++) {
        p->g[i].a = p->a, p->g[i].b = p->b, p->g[i].c = p->c;
        if (!make_offsets(p->device, &p->g[i]))
            return false;
    }
    return true;
}

static void release(products *p)
{
    vk_free(p->device, &p->a);
    vk_free(p->device, &p->b);
    vk_free(p->device, &p->c);
    for (int i = 0; i < p->count; i++)
        vk_free(p->device, &p->g[i].offsets);
}

static bool failed(const nn_bench_product *shape)
{
    return cs_fail_in("benchmark of a product of %u x %u x %u", shape->m, shape->n, shape->k);
}

static bool time_in_turns(const nn_bench *b, products *p, nn_timing *t)
{
    double ns[NN_BENCH_PRODUCTS][NN_BENCH_MOST];
    double sum = 0;
    int runs = -1; /* the first ones may compile */
    for (; !nn_bench_enough(b, runs, sum / p->count); runs++)
        for (int i = 0; i < p->count; i++) {
            double once;
            if (!nn_bench_once(b, run, &(product){p->device, &p->g[i]}, &once))
                return false;
            if (runs < 0)
                continue;
            ns[i][runs] = once;
            sum += once;
        }
    for (int i = 0; i < p->count; i++)
        nn_summarise(&t[i], ns[i], runs);
    return true;
}

bool nn_bench_gemm(const nn_bench *b, const nn_bench_product *shapes, int count, nn_timing *t)
{
    products p = {.device = b->device};
    bool ok = make(&p, shapes, count, t) && time_in_turns(b, &p, t);
    release(&p);
    return ok || failed(shapes);
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

static void refuse(const nn_bench_contest *c, const char *variant, const char *reason)
{
    const nn_bench_product *p = &c->product;
    cs_log(CS_LOG_WARN, "%s is not used for %s products of %u x %u x %u in %s: %s", variant,
           nn_gemm_layout_names[p->layout], p->m, p->n, p->k, nn_dtype_name(p->type), reason);
}

/* Whether the variant takes part: one whose result is wrong does not, nor one that no device has proved and that fails
 * here. False where another fails, which may be for want of memory. Tests vouch for what a proven one does beyond the
 * plain product. */
static bool admit(nn_gemm_check *check, const nn_gemm_variant *v, const nn_bench_contest *c, bool *admitted)
{
    bool agrees = true;
    bool made = v == nn_gemm_plainest() || nn_gemm_check_variant(check, v->name, v->unproven, &agrees);
    *admitted = made && agrees;
    if (made && !agrees)
        refuse(c, v->name, "its result is wrong");
    else if (!made && v->unproven)
        refuse(c, v->name, cs_error());
    return made || v->unproven;
}

static bool time_variants(const nn_bench *b, nn_gemm *g, nn_gemm_check *check, nn_bench_contest *c)
{
    const nn_gemm_variant *taken = nn_gemm_choose(b->device, g);
    if (!taken)
        return false;
    c->taken = taken->name;
    for (int i = 0; nn_gemm_variant_name(i) && c->count < NN_BENCH_VARIANTS; i++) {
        nn_timing t = {0};
        bool admitted;
        g->variant = nn_gemm_variant_name(i);
        if (!nn_gemm_variant_suits(b->device, g->variant, g))
            continue;
        if (!admit(check, nn_gemm_find(g->variant), c, &admitted))
            return false;
        if (admitted && !nn_bench_device_time(b, run, &(product){b->device, g}, &t))
            return false;
        if (admitted)
            enter(c, g->variant, t.median);
    }
    return true;
}

/* The shape with as many tokens as its thorough check has. */
static nn_bench_product roomy(nn_bench_product shape)
{
    uint32_t *tokens = shape.layout == NN_GEMM_TN ? &shape.k : &shape.m;
    if (!shape.groups)
        *tokens = nn_gemm_check_tokens(*tokens);
    return shape;
}

bool nn_bench_variants(const nn_bench *b, const nn_bench_product *shape, nn_bench_contest *contest)
{
    products p = {.device = b->device};
    nn_gemm_check check = {.device = b->device};
    const nn_bench_product shapes[] = {*shape, roomy(*shape)};
    nn_timing t[2];
    *contest = (nn_bench_contest){.product = *shape};
    bool ok = make(&p, shapes, 2, t) && nn_gemm_check_begin(&check, b->device, p.g) &&
              time_variants(b, p.g, &check, contest);
    if (!ok)
        contest->count = 0;
    nn_gemm_check_end(&check);
    release(&p);
    return ok || failed(shape);
}
