/* AdamW with global-norm clipping, all on the device: the norm of the gradients is never waited
 * for, nor is an overflow under loss scaling. */
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

/* ---- loss scaling ------------------------------------------------------------------------------------------------ */

bool nn_params_scale_loss(nn_params *set, const nn_loss_scale *start, uint32_t growth)
{
    if (!(start->scale >= 1) || isinf(start->scale) || !growth)
        return cs_fail("optimizer: a loss scale of %g that doubles after %u steps", start->scale, growth);
    set->growth = growth;
    if (!set->loss_scale.block)
        set->loss_scale = vk_alloc(set->device, sizeof *start, VK_MEMORY_DEVICE, "the loss scale");
    return set->loss_scale.block && vk_upload(set->device, set->loss_scale, start, sizeof *start);
}

vk_range nn_params_loss_scale(const nn_params *set)
{
    return set->loss_scale;
}

bool nn_params_read_loss_scale(nn_params *set, nn_loss_scale *state)
{
    *state = (nn_loss_scale){0};
    return !set->loss_scale.block || vk_read(set->device, set->loss_scale, state, sizeof *state);
}

/* ---- the norm ---------------------------------------------------------------------------------------------------- */

enum {
    UPDATE_BYTES = 28, /* of grad_norm.comp's result, ... */
    NORM_BYTES = 8,    /* of which the norm and the loss scale come first */
};

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

/* What the optimizer needs to know of this step and its gradients into `update` (shaders/grad_norm.comp). */
static bool measure(const nn_params *set, const nn_adamw *a, uint64_t step, uint64_t partial_bytes, vk_range update)
{
    struct {
        float clip, lr, keep, log_beta1, log_beta2;
        uint32_t step, growth;
    } push = {
        .clip = a->clip,
        .lr = a->lr,
        .keep = (float)(1 - (double)a->lr * a->decay),
        .log_beta1 = (float)log(a->beta1),
        .log_beta2 = (float)log(a->beta2),
        .step = (uint32_t)step,
        .growth = set->growth,
    };
    vk_range partials = vk_alloc(set->device, partial_bytes, VK_MEMORY_DEVICE, "the gradient norm");
    bool ok = partials.block;
    partials.size = partial_bytes;
    ok = ok && vk_fill(set->device, partials, 0) && square_slabs(set, partials) &&
         nn_launch_rows(set->device, &(nn_launch){
             .kernel = "grad_norm",
             .rows = 1,
             .cols = (int64_t)(partial_bytes / 4),
             .reduce = true,
             .bind = {{whole(partials, VK_READ), 0}, {whole(update, VK_WRITE), 0},
                      {whole(set->loss_scale, VK_READ | VK_WRITE), 0}},
             .spec = {set->loss_scale.block != NULL},
             .push = &push,
             .push_bytes = sizeof push,
             .once = true,
         });
    vk_free(set->device, &partials);
    return ok;
}

/* ---- the step ---------------------------------------------------------------------------------------------------- */

static bool update_slab(const nn_params *set, nn_slab *s, const nn_adamw *a, vk_range update)
{
    s->narrowed = false;
    /* Slabs are whole groups of 64 elements, decaying and not. */
    nn_flat f = nn_flat_shape(set->device, (int64_t)s->elements);
    struct {
        uint32_t decay_units;
        float beta1, beta2, eps;
    } push = {
        .decay_units = (uint32_t)(s->decay_elements / f.width),
        .beta1 = a->beta1,
        .beta2 = a->beta2,
        .eps = a->eps,
    };
    return nn_launch_rows(set->device, &(nn_launch){
        .kernel = "adamw",
        .rows = f.rows,
        .cols = f.cols,
        .width = f.width,
        .turns = true,
        .bind = {{whole(s->value, VK_READ), f.stride, true}, {whole(s->grad, VK_READ), f.stride, true},
                 {whole(s->m, VK_READ), f.stride, true}, {whole(s->v, VK_READ), f.stride, true},
                 {whole(update, VK_READ), 0}, {whole(s->value, VK_WRITE), f.stride},
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
    vk_range update = vk_alloc(set->device, UPDATE_BYTES, VK_MEMORY_DEVICE, "the gradient norm");
    bool ok = update.block && measure(set, a, step, partial_bytes, update);
    for (size_t i = 0; ok && i < set->slabs; i++)
        if (learns(&set->slab[i]))
            ok = update_slab(set, &set->slab[i], a, update);
    vk_range measured = {update.block, update.offset, NORM_BYTES};
    norm.size = NORM_BYTES;
    ok = ok && (!norm.block || vk_copy(set->device, norm, measured));
    vk_free(set->device, &update);
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
