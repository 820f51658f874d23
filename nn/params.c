/* Parameter sets: declaration, layout in slabs, initial values, host access. */
#include "nn/params_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "base/random.h"
#include "nn/launch.h"

/* Parameters start on 256 bytes, also in 16 bits, which every device accepts as a storage and as a texel buffer
 * offset. */
enum { PARAM_ALIGN = 128, SLAB_ELEMENTS = 64 << 20 };

nn_params *nn_params_new(vk_device *device)
{
    nn_params *set = cs_alloc(1, sizeof *set, "the parameters");
    if (set)
        set->device = device;
    return set;
}

void nn_params_free(nn_params **set)
{
    nn_params *s = *set;
    if (!s)
        return;
    for (size_t i = 0; i < s->slabs; i++) {
        vk_free(s->device, &s->slab[i].value);
        vk_free(s->device, &s->slab[i].grad);
        vk_free(s->device, &s->slab[i].m);
        vk_free(s->device, &s->slab[i].v);
        vk_free(s->device, &s->slab[i].narrow);
    }
    vk_free(s->device, &s->loss_scale);
    for (size_t i = 0; i < s->count; i++)
        free(s->param[i]);
    free(s->param);
    free(s->slab);
    free(s);
    *set = NULL;
}

nn_tensor *nn_param_add(nn_params *set, const char *name, int dims, const int64_t *shape, enum nn_init init,
                        float scale, bool decay)
{
    if (set->allocated)
        return cs_fail("parameter '%s': the set is laid out already", name), NULL;
    if (nn_params_find(set, name))
        return cs_fail("parameter '%s' is declared twice", name), NULL;
    if (strlen(name) >= sizeof set->param[0]->name)
        return cs_fail("parameter '%s': the name is too long", name), NULL;
    if (dims < 0 || dims > NN_MAX_DIMS)
        return cs_fail("parameter '%s': %d dimensions, at most %d are possible", name, dims, NN_MAX_DIMS), NULL;
    if (!cs_grow(&set->param, &set->capacity, set->count + 1, sizeof *set->param, "the parameters"))
        return NULL;
    nn_param *p = cs_alloc(1, sizeof *p, "a parameter");
    if (!p)
        return NULL;
    *p = (nn_param){.tensor = {.dtype = NN_F32, .dims = dims, .keep = true},
                    .init = init,
                    .scale = scale,
                    .decay = decay,
                    .trainable = true};
    snprintf(p->name, sizeof p->name, "%s", name);
    p->tensor.param = p;
    int64_t n = 1;
    for (int i = 0; i < NN_MAX_DIMS; i++) {
        p->tensor.shape[i] = i < dims ? shape[i] : 1;
        if (p->tensor.shape[i] < 1 || n > INT32_MAX / p->tensor.shape[i]) {
            cs_fail("parameter '%s': dimension %d is %lld; sizes must be positive and at most 2^31 elements in all",
                    name, i, (long long)p->tensor.shape[i]);
            free(p);
            return NULL;
        }
        n *= p->tensor.shape[i];
    }
    set->param[set->count++] = p;
    return &p->tensor;
}

size_t nn_params_freeze(nn_params *set, const char *prefix)
{
    size_t frozen = 0;
    for (size_t i = 0; i < set->count; i++)
        if (!strncmp(set->param[i]->name, prefix, strlen(prefix))) {
            set->param[i]->trainable = false;
            frozen++;
        }
    return frozen;
}

/* ---- layout ----------------------------------------------------------------------------------------------------- */

static bool place(nn_params *set, nn_param *p)
{
    uint64_t n = ((uint64_t)nn_count(&p->tensor) + PARAM_ALIGN - 1) / PARAM_ALIGN * PARAM_ALIGN;
    nn_slab *s = set->slabs ? &set->slab[set->slabs - 1] : NULL;
    if (!s || s->trainable != p->trainable || s->elements + n > SLAB_ELEMENTS) {
        if (!cs_grow(&set->slab, &set->slab_capacity, set->slabs + 1, sizeof *set->slab, "the parameters"))
            return false;
        s = &set->slab[set->slabs++];
        *s = (nn_slab){.trainable = p->trainable};
    }
    p->slab = (int)set->slabs - 1;
    p->offset = s->elements;
    s->elements += n;
    if (p->decay)
        s->decay_elements = s->elements;
    return true;
}

/* Decayed parameters first, so that a slab has one boundary between the two kinds. */
static bool place_all(nn_params *set)
{
    for (int trainable = 1; trainable >= 0; trainable--)
        for (int decay = 1; decay >= 0; decay--)
            for (size_t i = 0; i < set->count; i++) {
                nn_param *p = set->param[i];
                if (p->trainable == trainable && p->decay == decay && !place(set, p))
                    return false;
            }
    return true;
}

static vk_range *slab_part(nn_slab *s, enum nn_part part)
{
    vk_range *const parts[] = {&s->value, &s->grad, &s->m, &s->v};
    return parts[part];
}

static bool allocate_slab(nn_params *set, nn_slab *s, bool training)
{
    static const char *const what[] = {"parameters", "gradients", "AdamW's first moments", "AdamW's second moments"};
    for (int part = NN_VALUE; part < (training && s->trainable ? NN_PARTS : NN_GRADIENT); part++) {
        vk_range range = vk_alloc(set->device, s->elements * 4, VK_MEMORY_DEVICE, what[part]);
        *slab_part(s, (enum nn_part)part) = range;
        if (!range.block || !vk_fill(set->device, range, 0))
            return false;
    }
    return true;
}

static vk_range part_of(vk_range slab, const nn_param *p)
{
    if (!slab.block)
        return slab;
    uint64_t bytes = ((uint64_t)nn_count(&p->tensor) * 4 + 15) & ~(uint64_t)15;
    return (vk_range){slab.block, slab.offset + p->offset * 4, bytes};
}

static bool initialise(nn_params *set, nn_param *p, uint64_t seed)
{
    size_t n = (size_t)nn_count(&p->tensor);
    float *host = cs_alloc(n, sizeof *host, p->name);
    if (!host)
        return false;
    cs_random r = {.seed = seed, .stream = cs_random_stream(p->name)};
    for (size_t i = 0; i < n && !vk_is_dry(set->device); i++) {
        switch (p->init) {
        case NN_INIT_ZERO:
            break;
        case NN_INIT_ONE:
            host[i] = 1;
            break;
        case NN_INIT_NORMAL:
            host[i] = p->scale * cs_random_normal(&r);
            break;
        case NN_INIT_UNIFORM:
            host[i] = p->scale * (2 * cs_random_float(&r) - 1);
            break;
        }
    }
    bool ok = p->init == NN_INIT_ZERO || nn_param_write(set, p, NN_VALUE, host);
    free(host);
    return ok;
}

bool nn_params_allocate(nn_params *set, bool training, uint64_t seed)
{
    if (!place_all(set))
        return false;
    set->allocated = true;
    for (size_t i = 0; i < set->slabs; i++)
        if (!allocate_slab(set, &set->slab[i], training))
            return false;
    for (size_t i = 0; i < set->count; i++) {
        nn_param *p = set->param[i];
        const nn_slab *s = &set->slab[p->slab];
        p->tensor.data = part_of(s->value, p);
        p->tensor.grad = part_of(s->grad, p);
        p->tensor.wants_grad = training && p->trainable;
        if (!initialise(set, p, seed))
            return false;
    }
    return true;
}

/* ---- 16-bit copies ---------------------------------------------------------------------------------------------- */

static bool allocate_narrow(nn_params *set, size_t slab, enum nn_dtype type)
{
    nn_slab *s = &set->slab[slab];
    if (s->narrow.block || !s->decay_elements)
        return true;
    s->narrow = vk_alloc(set->device, s->decay_elements * nn_dtype_size(type), VK_MEMORY_DEVICE, "16-bit parameters");
    for (size_t i = 0; s->narrow.block && i < set->count; i++) {
        nn_param *p = set->param[i];
        if (p->slab != (int)slab || !p->decay || nn_cols(&p->tensor) % NN_HALF_COLS)
            continue;
        p->narrow = (vk_range){s->narrow.block, s->narrow.offset + p->offset * nn_dtype_size(type),
                               (uint64_t)nn_count(&p->tensor) * nn_dtype_size(type)};
        p->narrow_type = type;
    }
    return s->narrow.block;
}

bool nn_params_narrow(nn_params *set, enum nn_dtype type)
{
    for (size_t i = 0; nn_is_half(type) && i < set->slabs; i++) {
        nn_slab *s = &set->slab[i];
        nn_row_bind from = {{s->value, VK_READ}, .values = true}, to = {{{0}, VK_WRITE}, .type = type};
        if (s->narrowed || !s->decay_elements)
            continue;
        if (!allocate_narrow(set, i, type))
            return false;
        to.bind.range = s->narrow;
        if (!nn_cast_run(set->device, from, to, (int64_t)s->decay_elements, false))
            return false;
        s->narrowed = true;
    }
    return true;
}

/* ---- access ----------------------------------------------------------------------------------------------------- */

size_t nn_params_count(const nn_params *set)
{
    return set->count;
}

nn_param *nn_params_at(const nn_params *set, size_t i)
{
    return set->param[i];
}

nn_param *nn_params_find(const nn_params *set, const char *name)
{
    for (size_t i = 0; i < set->count; i++)
        if (!strcmp(set->param[i]->name, name))
            return set->param[i];
    return NULL;
}

uint64_t nn_params_elements(const nn_params *set, bool trainable_only)
{
    uint64_t n = 0;
    for (size_t i = 0; i < set->count; i++)
        if (set->param[i]->trainable || !trainable_only)
            n += (uint64_t)nn_count(&set->param[i]->tensor);
    return n;
}

uint64_t nn_params_bytes(const nn_params *set, enum nn_part part)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < set->slabs; i++) {
        bytes += slab_part(&set->slab[i], part)->size;
    }
    return bytes;
}

static bool part_range(const nn_params *set, const nn_param *p, enum nn_part part, vk_range *range)
{
    nn_slab *s = &set->slab[p->slab];
    *range = part_of(*slab_part(s, part), p);
    range->size = (uint64_t)nn_count(&p->tensor) * 4;
    return range->block || cs_fail("parameter '%s' is not being trained: it has no gradient and no moments", p->name);
}

bool nn_param_read(nn_params *set, const nn_param *p, enum nn_part part, float *host)
{
    vk_range r;
    return part_range(set, p, part, &r) && vk_read(set->device, r, host, r.size);
}

bool nn_param_write(nn_params *set, const nn_param *p, enum nn_part part, const float *host)
{
    vk_range r;
    set->slab[p->slab].narrowed = false;
    return part_range(set, p, part, &r) && vk_upload(set->device, r, host, r.size);
}
