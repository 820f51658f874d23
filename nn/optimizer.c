/* AdamW with global-norm clipping, all on the device: the norm of the gradients is never waited for. */
#include <math.h>
#include <stdint.h>

#include "base/error.h"
#include "nn/launch.h"
#include "nn/params_internal.h"

static vk_bind whole(vk_range range, uint32_t access)
{
    return (vk_bind){range, access};
}

static bool learns(const nn_slab *s)
{
    return s->trainable && s->grad.block && s->elements;
}

bool nn_params_zero_grad(nn_params *set)
{
    for (size_t i = 0; i < set->slabs; i++) {
        vk_range grad = set->slab[i].grad;
        grad.size = set->slab[i].elements * 4;
        if (learns(&set->slab[i]) && !vk_fill(set->device, grad, 0))
            return false;
    }
    return true;
}

/* ---- the norm ---------------------------------------------------------------------------------------------------- */

/* Sums of squares of chunks of every slab side by side. Each slab's start on their own aligned offset; the gaps between
 * are zeroed with everything else. */
static uint64_t partial_stride(const vk_caps *caps, const nn_slab *s)
{
    uint64_t bytes = (uint64_t)nn_reduce_partials((int64_t)s->elements) * 4;
    uint64_t align = caps->storage_align > 4 ? caps->storage_align : 4;
    return (bytes + align - 1) / align * align;
}

static bool square_slabs(const nn_params *set, vk_range partials)
{
    uint64_t at = 0;
    for (size_t i = 0; i < set->slabs; i++) {
        const nn_slab *s = &set->slab[i];
        if (!learns(s))
            continue;
        uint64_t bytes = partial_stride(vk_device_caps(set->device), s);
        vk_range mine = {partials.block, partials.offset + at, bytes};
        vk_bind grad = whole(s->grad, VK_READ), sums = whole(mine, VK_WRITE);
        if (!nn_reduce_chunks(set->device, grad, (int64_t)s->elements, true, 1, sums))
            return false;
        at += bytes;
    }
    return true;
}

/* {norm, clip factor} into `result`. */
static bool measure(const nn_params *set, float clip, uint64_t partial_bytes, vk_range result)
{
    vk_range partials = vk_alloc(set->device, partial_bytes, VK_MEMORY_DEVICE, "the gradient norm");
    bool ok = partials.block;
    partials.size = partial_bytes;
    ok = ok && vk_fill(set->device, partials, 0) && square_slabs(set, partials) &&
         nn_launch_rows(set->device, &(nn_launch){
             .kernel = "grad_norm",
             .rows = 1,
             .cols = (int64_t)(partial_bytes / 4),
             .reduce = true,
             .bind = {{whole(partials, VK_READ), 0}, {whole(result, VK_WRITE), 0}},
             .push = &clip,
             .push_bytes = sizeof clip,
         });
    vk_free(set->device, &partials);
    return ok;
}

/* ---- the step ---------------------------------------------------------------------------------------------------- */

static bool update_slab(const nn_params *set, const nn_slab *s, const nn_adamw *a, uint64_t step, vk_range clip)
{
    /* Slabs are whole groups of 64 elements, decaying and not. */
    nn_flat f = nn_flat_shape(set->device, (int64_t)s->elements);
    double correction1 = 1 - pow(a->beta1, (double)step), correction2 = 1 - pow(a->beta2, (double)step);
    struct {
        uint32_t decay_units;
        float rate, beta1, beta2, eps, keep, root_correction2;
    } push = {
        .decay_units = (uint32_t)(s->decay_elements / f.width),
        .rate = (float)(a->lr / correction1),
        .beta1 = a->beta1,
        .beta2 = a->beta2,
        .eps = a->eps,
        .keep = (float)(1 - (double)a->lr * a->decay),
        .root_correction2 = (float)(1 / sqrt(correction2)),
    };
    return nn_launch_rows(set->device, &(nn_launch){
        .kernel = "adamw",
        .rows = f.rows,
        .cols = f.cols,
        .width = f.width,
        .bind = {{whole(s->value, VK_READ), f.stride, true}, {whole(s->grad, VK_READ), f.stride, true},
                 {whole(s->m, VK_READ), f.stride, true}, {whole(s->v, VK_READ), f.stride, true},
                 {whole(clip, VK_READ), 0}, {whole(s->value, VK_WRITE), f.stride},
                 {whole(s->m, VK_WRITE), f.stride}, {whole(s->v, VK_WRITE), f.stride}},
        .push = &push,
        .push_bytes = sizeof push,
        .flops = 15.0 * (double)s->elements,
    });
}

bool nn_params_step(nn_params *set, const nn_adamw *a, uint64_t step, vk_range norm)
{
    uint64_t partial_bytes = 0;
    for (size_t i = 0; i < set->slabs; i++)
        if (learns(&set->slab[i]))
            partial_bytes += partial_stride(vk_device_caps(set->device), &set->slab[i]);
    if (!partial_bytes)
        return !norm.block || vk_fill(set->device, norm, 0);
    if (step < 1)
        return cs_fail("optimizer: steps count from 1");
    vk_range clip = vk_alloc(set->device, 8, VK_MEMORY_DEVICE, "the gradient norm");
    bool ok = clip.block && measure(set, a->clip, partial_bytes, clip);
    for (size_t i = 0; ok && i < set->slabs; i++)
        if (learns(&set->slab[i]))
            ok = update_slab(set, &set->slab[i], a, step, clip);
    vk_range measured = {clip.block, clip.offset, 4};
    norm.size = 4;
    ok = ok && (!norm.block || vk_copy(set->device, norm, measured));
    vk_free(set->device, &clip);
    return ok;
}

float nn_lr(enum nn_schedule kind, float peak, float min_ratio, uint64_t step, uint64_t warmup, uint64_t total)
{
    if (step < warmup)
        return peak * (float)(step + 1) / (float)warmup;
    if (kind == NN_SCHEDULE_CONSTANT || total <= warmup)
        return peak;
    double done = step < total ? (double)(step - warmup) / (double)(total - warmup) : 1;
    double left = kind == NN_SCHEDULE_LINEAR ? 1 - done : 0.5 * (1 + cos(M_PI * done));
    return (float)(peak * (min_ratio + (1 - (double)min_ratio) * left));
}
