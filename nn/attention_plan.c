/* Which attention kernel a device gets, and with which tiles. */
#include "nn/attention_internal.h"

#include <math.h>

#include "base/error.h"

static bool prefer_shared;

void nn_attention_prefer_shared(bool prefer)
{
    prefer_shared = prefer;
}

/* Largest divisor of `width` that is at most `limit`. */
static uint32_t divisor(uint32_t width, uint32_t limit)
{
    uint32_t d = width < limit ? width : limit;
    while (width % d)
        d--;
    return d;
}

/* Subgroups of a CPU driver, at most this many lanes, are vectors: a shuffle by a constant is one instruction there,
 * while shared memory costs as much as any load. On GPUs it is the other way round. */
enum { CPU_LANES = 16 };

nn_attention_plan nn_attention_plan_for(const vk_caps *caps, enum nn_attention_kernel kernel, int head_dim,
                                        enum nn_dtype type)
{
    nn_attention_plan plan = {.type = type};
    uint32_t width = (uint32_t)head_dim / 4, unit = nn_is_half(type) ? 2 : 1; /* vec4s in a texel */
    bool fixed = caps->subgroup_min == caps->subgroup_max;
    plan.shuffle = caps->type == VK_TYPE_CPU && caps->subgroup_shuffle && caps->subgroup_size >= 4 &&
                   caps->subgroup_size <= CPU_LANES && (fixed || caps->subgroup_control) && !prefer_shared;
    if (plan.shuffle) {
        plan.lanes = plan.tile = caps->subgroup_size;
        plan.subgroup = caps->subgroup_control ? caps->subgroup_size : 0;
        plan.wide = caps->int64;
        plan.chunk = unit * divisor(width / unit, 20 / unit);
        /* Many save loads and shuffles; beyond, compiling the kernels would take seconds. */
        plan.rows = width <= 8 ? 4 : 2;
    } else {
        plan.lanes = caps->subgroup_size > 32 && caps->max_invocations >= 64 ? 64 : 32;
        /* Two tiles of whole rows in 16 KiB, which every device has; a few bytes more go to the segments. */
        plan.tile = 32;
        while (plan.tile > 8 && plan.tile * width * 32 > 12288)
            plan.tile /= 2;
        plan.chunk = unit * divisor(width / unit, (kernel == NN_ATTENTION_BACKWARD_KEY ? 8 : 16) / unit);
        plan.rows = 1;
    }
    plan.block = plan.tile < 8 ? plan.tile : 8;
    plan.chunks = width / plan.chunk;
    return plan;
}

bool nn_attention_check(const char *what, const nn_attention_params *p, int64_t cols)
{
    if (p->heads < 1 || p->kv_heads < 1 || p->heads % p->kv_heads)
        return cs_fail("%s: %d heads cannot share %d key heads evenly", what, p->heads, p->kv_heads);
    if (p->head_dim < 4 || p->head_dim > 128 || p->head_dim % 4)
        return cs_fail("%s: head_dim is %d, must be a multiple of 4 from 4 to 128", what, p->head_dim);
    int64_t wanted = ((int64_t)p->heads + 2 * (int64_t)p->kv_heads) * p->head_dim;
    if (cols != wanted)
        return cs_fail("%s: rows of %lld elements, but %d heads and 2 x %d key heads of %d make %lld", what,
                       (long long)cols, p->heads, p->kv_heads, p->head_dim, (long long)wanted);
    return true;
}

float nn_attention_scale(const nn_attention_params *p)
{
    return p->scale != 0 ? p->scale : 1 / sqrtf((float)p->head_dim);
}

bool nn_attention_visible(const nn_attention_params *p, int64_t i, int64_t j, int query_segment, int key_segment)
{
    if (query_segment < 0 || key_segment < 0 || (key_segment != 0 && key_segment != query_segment))
        return false;
    return !p->causal || j <= i || (p->open_prefix && query_segment == 0 && key_segment == 0);
}

void nn_attention_dispatch(vk_dispatch *d, const nn_attention_plan *plan, enum nn_attention_kernel kernel,
                           const nn_attention_params *p, const nn_attention_push *push, bool segments, int64_t batch)
{
    static const char *const names[][3] = {
        [NN_ATTENTION_FORWARD] = {"attention_forward_shared", "attention_forward_shuffle", "attention_forward_wide"},
        [NN_ATTENTION_BACKWARD_QUERY] = {"attention_backward_query_shared", "attention_backward_query_shuffle",
                                         "attention_backward_query_wide"},
        [NN_ATTENTION_BACKWARD_KEY] = {"attention_backward_key_shared", "attention_backward_key_shuffle",
                                       "attention_backward_key_wide"},
    };
    static const char *const labels[] = {"attention forward", "attention dq", "attention dk dv"};
    static const int products[] = {2, 3, 4}; /* of each score's row pair */
    bool over_keys = kernel == NN_ATTENTION_BACKWARD_KEY;
    uint32_t rows = over_keys ? push->keys : push->queries, per_group = plan->lanes * plan->rows;
    *d = (vk_dispatch){
        .kernel = names[kernel][plan->shuffle + plan->wide],
        .label = labels[kernel],
        .spec = {plan->lanes, plan->rows, plan->tile, plan->block, plan->chunk, plan->chunks, segments, p->causal,
                 p->open_prefix, plan->type},
        .specs = NN_ATTENTION_PICKED + 1,
        .push = push,
        .push_bytes = sizeof *push,
        .groups = {(rows + per_group - 1) / per_group, (over_keys ? p->kv_heads : p->heads) * plan->chunks,
                   (uint32_t)batch},
        .subgroup = plan->subgroup,
    };
    double pairs = (double)batch * p->heads * push->queries * push->keys * (p->causal && push->past == 0 ? 0.5 : 1);
    d->flops = pairs * products[kernel] * 2 * p->head_dim;
    double vectors = (double)batch * (push->queries * 2.0 * p->heads + push->keys * 2.0 * p->kv_heads);
    d->bytes = vectors * p->head_dim * (double)nn_dtype_size(plan->type);
}
