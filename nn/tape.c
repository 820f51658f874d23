/* The tape: builds the list of nodes, turns it into a program (forward, recomputation, backward) with liveness, runs
 * it. */
#include "nn/tape_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "nn/dtype.h"
#include "nn/launch.h"

/* ---- tensors ---------------------------------------------------------------------------------------------------- */

int64_t nn_count(const nn_tensor *t)
{
    int64_t n = 1;
    for (int i = 0; i < t->dims; i++)
        n *= t->shape[i];
    return n;
}

int64_t nn_cols(const nn_tensor *t)
{
    return t->dims ? t->shape[t->dims - 1] : 1;
}

int64_t nn_rows(const nn_tensor *t)
{
    int64_t n = 1;
    for (int i = 0; i < t->dims - 1; i++)
        n *= t->shape[i];
    return n;
}

/* The tensor that has the memory. */
static nn_tensor *owner(const nn_tensor *t)
{
    while (t->base)
        t = t->base;
    return (nn_tensor *)t;
}

uint64_t nn_bytes(const nn_tensor *t)
{
    return (uint64_t)nn_count(t) * nn_dtype_size(t->dtype);
}

static bool set_shape(nn_tensor *t, enum nn_dtype dtype, int dims, const int64_t *shape, const char *what)
{
    if (dims < 0 || dims > NN_MAX_DIMS)
        return cs_fail("%s: %d dimensions, at most %d are possible", what, dims, NN_MAX_DIMS);
    t->dtype = dtype;
    t->dims = dims;
    int64_t n = 1;
    for (int i = 0; i < NN_MAX_DIMS; i++) {
        t->shape[i] = i < dims ? shape[i] : 1;
        if (t->shape[i] < 1 || n > INT32_MAX / t->shape[i])
            return cs_fail("%s: dimension %d is %lld; sizes must be positive and at most 2^31 elements in all", what, i,
                           (long long)t->shape[i]);
        n *= t->shape[i];
    }
    if (nn_is_half(dtype) && (!dims || t->shape[dims - 1] % NN_HALF_COLS))
        return cs_fail("%s: rows of %lld values in 16 bits; they must be a multiple of %d", what,
                       (long long)nn_cols(t), NN_HALF_COLS);
    return true;
}

/* ---- arena: nodes and tensors of one step ----------------------------------------------------------------------- */

enum { CHUNK_BYTES = 1 << 16 };

void *nn_tape_take(nn_tape *tape, size_t bytes)
{
    bytes = (bytes + 15) & ~(size_t)15;
    nn_chunk *c = tape->chunk;
    if (!c || c->used + bytes > CHUNK_BYTES) {
        nn_chunk *next = c ? c->next : tape->chunks;
        if (!next) {
            next = cs_alloc(1, sizeof *next + CHUNK_BYTES, "the tape");
            if (!next)
                return NULL;
            if (c)
                c->next = next;
            else
                tape->chunks = next;
        }
        next->used = 0;
        tape->chunk = c = next;
    }
    void *p = c->bytes + c->used;
    c->used += bytes;
    return memset(p, 0, bytes);
}

static void drop_gradient(nn_tape *tape, nn_tensor *t)
{
    if (t->grad_holders && --*t->grad_holders)
        t->grad = (vk_range){0};
    else
        vk_free(tape->device, &t->grad);
    t->grad_holders = NULL;
}

nn_tape *nn_tape_new(vk_device *device)
{
    nn_tape *tape = cs_alloc(1, sizeof *tape, "the tape");
    if (tape)
        tape->device = device;
    return tape;
}

void nn_tape_reset(nn_tape *tape)
{
    for (size_t i = 0; i < tape->tensors; i++) {
        nn_tensor *t = tape->tensor[i];
        if (!t->external)
            vk_free(tape->device, &t->data);
        drop_gradient(tape, t);
    }
    vk_free(tape->device, &tape->indices);
    tape->nodes = tape->tensors = tape->steps = 0;
    tape->segment = tape->segments = 0;
    tape->chunk = NULL;
    tape->failed = tape->ran = false;
}

void nn_tape_free(nn_tape **tape)
{
    nn_tape *t = *tape;
    if (!t)
        return;
    nn_tape_reset(t);
    for (nn_chunk *c = t->chunks, *next; c; c = next) {
        next = c->next;
        free(c);
    }
    free(t->node);
    free(t->tensor);
    free(t->step);
    free(t);
    *tape = NULL;
}

enum nn_dtype nn_tape_set_precision(nn_tape *tape, enum nn_dtype precision)
{
    enum nn_dtype before = tape->precision;
    tape->precision = precision;
    return before;
}

void nn_tape_set_loss_scale(nn_tape *tape, vk_range scale)
{
    tape->loss_scale = scale;
}

/* ---- building --------------------------------------------------------------------------------------------------- */

/* Remembers the first failure: the chain goes on with NULL tensors and later messages must not hide the cause. */
static void *fail_build(nn_tape *tape)
{
    if (!tape->failed) {
        tape->failed = true;
        snprintf(tape->error, sizeof tape->error, "%s", cs_error());
    }
    return NULL;
}

static nn_tensor *new_tensor(nn_tape *tape)
{
    if (!cs_grow(&tape->tensor, &tape->tensor_capacity, tape->tensors + 1, sizeof *tape->tensor, "the tape"))
        return NULL;
    nn_tensor *t = nn_tape_take(tape, sizeof *t);
    if (t)
        tape->tensor[tape->tensors++] = t;
    return t;
}

static nn_tensor *new_leaf(nn_tape *tape, enum nn_dtype dtype, int dims, const int64_t *shape, const char *what)
{
    nn_tensor *t = tape->failed ? NULL : new_tensor(tape);
    return t && set_shape(t, dtype, dims, shape, what) ? t : fail_build(tape);
}

nn_tensor *nn_input(nn_tape *tape, enum nn_dtype dtype, int dims, const int64_t *shape, const void *host)
{
    nn_tensor *t = new_leaf(tape, dtype, dims, shape, "input");
    if (t)
        t->host = host;
    return t;
}

nn_tensor *nn_external(nn_tape *tape, enum nn_dtype dtype, int dims, const int64_t *shape, vk_range data)
{
    nn_tensor *t = new_leaf(tape, dtype, dims, shape, "external tensor");
    if (!t)
        return NULL;
    if (data.size < nn_bytes(t))
        return cs_fail("external tensor: %llu bytes of memory for %llu bytes of values", (unsigned long long)data.size,
                       (unsigned long long)nn_bytes(t)),
               fail_build(tape);
    t->external = t->keep = true;
    t->data = data;
    return t;
}

nn_tensor *nn_watch(nn_tensor *t)
{
    if (t)
        t->wants_grad = t->keep_grad = true;
    return t;
}

nn_tensor *nn_keep(nn_tensor *t)
{
    if (t)
        owner(t)->keep = true;
    return t;
}

nn_tensor *nn_reshape(nn_tape *tape, nn_tensor *t, int dims, const int64_t *shape)
{
    if (!t)
        return fail_build(tape);
    nn_tensor *view = new_leaf(tape, t->dtype, dims, shape, "reshape");
    if (!view)
        return NULL;
    if (nn_count(view) != nn_count(t))
        return cs_fail("reshape: %lld elements into %lld", (long long)nn_count(t), (long long)nn_count(view)),
               fail_build(tape);
    view->base = owner(t);
    view->wants_grad = t->wants_grad;
    return view;
}

void nn_recompute_begin(nn_tape *tape)
{
    tape->segment = ++tape->segments;
}

void nn_recompute_end(nn_tape *tape)
{
    tape->segment = 0;
}

bool nn_apply(nn_tape *tape, const nn_op *op, const void *params, nn_tensor *const *in, int ins, nn_tensor **out)
{
    for (int i = 0; i < op->outs; i++)
        out[i] = NULL;
    if (tape->failed)
        return cs_fail("%s", tape->error);
    nn_node *n = nn_tape_take(tape, sizeof *n);
    if (!n || !cs_grow(&tape->node, &tape->node_capacity, tape->nodes + 1, sizeof *tape->node, "the tape"))
        return fail_build(tape) != NULL;
    n->op = op;
    n->ins = ins;
    n->outs = op->outs;
    n->segment = tape->segment;
    n->precision = tape->precision;
    if (params)
        memcpy(n->params, params, op->param_bytes);
    bool wants_grad = false;
    for (int i = 0; i < ins; i++) {
        if (!in[i] && !(op->optional & 1u << i)) {
            if (!cs_error()[0])
                cs_fail("%s: input %d is missing", op->name, i);
            return fail_build(tape) != NULL;
        }
        n->in[i] = in[i];
        wants_grad |= nn_wants_grad(in[i]);
    }
    for (int i = 0; i < op->outs; i++)
        if (!(n->out[i] = new_tensor(tape)))
            return fail_build(tape) != NULL;
    if (!op->infer(n))
        return fail_build(tape) != NULL;
    for (int i = 0; i < op->outs; i++) {
        nn_tensor *t = n->out[i];
        if (!set_shape(t, t->dtype, t->dims, t->shape, op->name))
            return fail_build(tape) != NULL;
        t->wants_grad = wants_grad && op->backward && nn_is_float(t->dtype) && !(op->aux_out & 1u << i);
        out[i] = t;
    }
    tape->node[tape->nodes++] = n;
    return true;
}

/* ---- the program: what runs when, and what may be released after it --------------------------------------------- */

static bool has_backward(const nn_node *n)
{
    for (int i = 0; i < n->outs; i++)
        if (n->out[i]->wants_grad)
            return true;
    return false;
}

static bool add_step(nn_tape *tape, enum nn_pass pass, nn_node *node)
{
    if (!cs_grow(&tape->step, &tape->step_capacity, tape->steps + 1, sizeof *tape->step, "the tape"))
        return false;
    tape->step[tape->steps++] = (nn_step){pass, node, 0, 0};
    return true;
}

static bool add_recomputation(nn_tape *tape, int segment)
{
    for (size_t i = 0; i < tape->nodes; i++)
        if (tape->node[i]->segment == segment && !add_step(tape, NN_PASS_FORWARD, tape->node[i]))
            return false;
    return true;
}

static bool make_program(nn_tape *tape, bool backward)
{
    for (size_t i = 0; i < tape->nodes; i++)
        if (!add_step(tape, NN_PASS_FORWARD, tape->node[i]))
            return false;
    int recomputed = 0;
    for (size_t i = tape->nodes; backward && i-- > 0;) {
        nn_node *n = tape->node[i];
        if (!has_backward(n))
            continue;
        if (n->segment && n->segment != recomputed && !add_recomputation(tape, n->segment))
            return false;
        recomputed = n->segment ? n->segment : recomputed;
        if (!add_step(tape, NN_PASS_BACKWARD, n))
            return false;
    }
    return true;
}

/* Marks a read during the backward scan over the program; returns whether it is the last one before the tensor's next
 * writing, after which its memory can go. */
static bool last_read(nn_tensor *t)
{
    nn_tensor *o = owner(t);
    bool last = !o->needed;
    o->needed = true;
    return last;
}

/* Walks the program from its end: a tensor is needed between a writing and the reads that follow it. */
static void scan_liveness(nn_tape *tape)
{
    for (size_t i = 0; i < tape->tensors; i++)
        tape->tensor[i]->needed = tape->tensor[i]->keep;
    for (size_t k = tape->steps; k-- > 0;) {
        nn_step *s = &tape->step[k];
        const nn_node *n = s->node;
        bool forward = s->pass == NN_PASS_FORWARD;
        for (int i = 0; i < n->outs; i++) {
            if (forward) {
                nn_tensor *o = owner(n->out[i]);
                if (!o->needed)
                    s->release_out |= 1u << i;
                o->needed = o->keep;
            } else if (n->op->keep_out & 1u << i && last_read(n->out[i])) {
                s->release_out |= 1u << i;
            }
        }
        for (int i = 0; i < n->ins; i++)
            if (n->in[i] && (forward || n->op->keep_in & 1u << i) && last_read(n->in[i]))
                s->release_in |= 1u << i;
    }
}

/* ---- running ---------------------------------------------------------------------------------------------------- */

static void release(nn_tape *tape, nn_tensor *t)
{
    nn_tensor *o = owner(t);
    if (!o->param && !o->external && !o->keep)
        vk_free(tape->device, &o->data);
}

static bool allocate(nn_tape *tape, nn_tensor *t, vk_range *range, const char *what)
{
    if (!range->block)
        *range = vk_alloc(tape->device, nn_bytes(t), VK_MEMORY_DEVICE, what);
    return range->block;
}

static bool prepare_input(nn_tape *tape, nn_tensor *t, const char *what)
{
    nn_tensor *o = owner(t);
    if (o->data.block)
        return true;
    if (!o->host)
        return cs_fail("%s: an input has no values (a parameter set that was not allocated?)", what);
    return allocate(tape, o, &o->data, what) && vk_upload(tape->device, o->data, o->host, nn_bytes(o));
}

/* Ids, positions and labels are many, small and read throughout: they go to the device in one upload and stay until the
 * reset. */
static bool upload_indices(nn_tape *tape)
{
    enum { ALIGN = 256 }; /* any device can bind a buffer there */
    uint64_t bytes = 0;
    for (size_t i = 0; i < tape->tensors; i++)
        if (tape->tensor[i]->dtype == NN_I32 && tape->tensor[i]->host)
            bytes += (nn_bytes(tape->tensor[i]) + ALIGN - 1) / ALIGN * ALIGN;
    if (!bytes)
        return true;
    unsigned char *host = cs_alloc(bytes, 1, "the step's indices");
    tape->indices = vk_alloc(tape->device, bytes, VK_MEMORY_DEVICE, "the step's indices");
    bool ok = host && tape->indices.block;
    uint64_t at = 0;
    for (size_t i = 0; ok && i < tape->tensors; i++) {
        nn_tensor *t = tape->tensor[i];
        if (t->dtype != NN_I32 || !t->host)
            continue;
        memcpy(host + at, t->host, nn_bytes(t));
        t->data = (vk_range){tape->indices.block, tape->indices.offset + at, nn_bytes(t)};
        t->external = true;
        at += (nn_bytes(t) + ALIGN - 1) / ALIGN * ALIGN;
    }
    ok = ok && vk_upload(tape->device, tape->indices, host, bytes);
    free(host);
    return ok;
}

static bool finish_node(nn_exec *x, bool ok)
{
    for (int i = 0; i < x->scratches; i++)
        vk_free(x->tape->device, &x->scratch[i]);
    x->scratches = 0;
    return ok && !x->failed;
}

static bool run_forward(nn_exec *x, const nn_node *n)
{
    for (int i = 0; i < n->ins; i++)
        if (n->in[i] && !prepare_input(x->tape, n->in[i], n->op->name))
            return false;
    for (int i = 0; i < n->outs; i++)
        if (n->out[i]->dims && !allocate(x->tape, n->out[i], &n->out[i]->data, n->op->name))
            return false;
    return finish_node(x, n->op->forward(x, n));
}

static bool run_backward(nn_exec *x, const nn_node *n)
{
    bool any = false;
    for (int i = 0; i < n->outs; i++)
        any |= n->out[i]->grad_started;
    if (!any)
        return true;
    for (int i = 0; i < n->outs; i++) {
        nn_tensor *t = n->out[i];
        if (!t->wants_grad || t->grad_started || n->op->adds_out & 1u << i)
            continue;
        if (!allocate(x->tape, t, &t->grad, n->op->name) || !vk_fill(x->tape->device, t->grad, 0))
            return false;
        t->grad_started = true;
    }
    bool ok = finish_node(x, n->op->backward(x, n));
    for (int i = 0; i < n->outs; i++)
        if (!n->out[i]->keep_grad)
            drop_gradient(x->tape, n->out[i]);
    return ok;
}

/* The gradient of `t` from floats on the host. */
static bool upload_floats(nn_tape *tape, nn_tensor *t, const float *values)
{
    if (t->dtype == NN_F32)
        return vk_upload(tape->device, t->grad, values, nn_bytes(t));
    uint16_t *narrow = cs_alloc((size_t)nn_bytes(t), 1, "a root gradient");
    if (!narrow)
        return false;
    nn_narrow(t->dtype, values, (size_t)nn_count(t), narrow);
    bool ok = vk_upload(tape->device, t->grad, narrow, nn_bytes(t));
    free(narrow);
    return ok;
}

enum { MAX_SCALED_ROOTS = 1024 };

/* The gradient of a root, without values yet; NULL where nothing trainable is behind it. */
static bool start_root(nn_tape *tape, const nn_root *root, int i, nn_tensor **t)
{
    *t = root->tensor ? owner(root->tensor) : NULL;
    if (!*t)
        return cs_fail("backward: root %d is missing", i);
    if (!(*t)->wants_grad || (*t)->param) {
        *t = NULL;
        return true;
    }
    if ((*t)->grad_started)
        return cs_fail("backward: root %d is given twice", i);
    if (tape->loss_scale.block && (root->seed || nn_count(*t) != 1))
        return cs_fail("backward: root %d is not a loss and cannot be scaled", i);
    (*t)->grad_started = true;
    return allocate(tape, *t, &(*t)->grad, "a root gradient");
}

/* The roots' weights times the loss scale, side by side on the device. */
static bool scale_weights(nn_tape *tape, const nn_root *roots, int count, vk_range *scaled)
{
    float weight[MAX_SCALED_ROOTS];
    if (count > MAX_SCALED_ROOTS)
        return cs_fail("backward: %d losses, at most %d can be scaled", count, MAX_SCALED_ROOTS);
    for (int i = 0; i < count; i++)
        weight[i] = roots[i].weight;
    *scaled = vk_alloc(tape->device, (uint64_t)count * 4, VK_MEMORY_DEVICE, "the losses' weights");
    return scaled->block && vk_upload(tape->device, *scaled, weight, scaled->size) &&
           nn_scale_run(tape->device, *scaled, tape->loss_scale, count);
}

static bool seed_roots(nn_tape *tape, const nn_root *roots, int count)
{
    vk_range scaled = {0};
    bool ok = !tape->loss_scale.block || !count || scale_weights(tape, roots, count, &scaled);
    for (int i = 0; ok && i < count; i++) {
        nn_tensor *t;
        if (!(ok = start_root(tape, &roots[i], i, &t)) || !t)
            continue;
        if (scaled.block)
            ok = vk_copy(tape->device, (vk_range){t->grad.block, t->grad.offset, 4},
                         (vk_range){scaled.block, scaled.offset + 4 * (uint64_t)i, 4});
        else if (roots[i].seed)
            ok = upload_floats(tape, t, roots[i].seed);
        else
            ok = vk_fill(tape->device, t->grad, nn_word_of(t->dtype, roots[i].weight));
    }
    vk_free(tape->device, &scaled);
    return ok;
}

bool nn_tape_run(nn_tape *tape, const nn_root *roots, int count)
{
    if (tape->failed)
        return cs_fail("%s", tape->error);
    if (tape->ran)
        return cs_fail("the tape has run already; reset it first");
    tape->ran = true;
    if (!make_program(tape, roots != NULL) || !upload_indices(tape))
        return false;
    scan_liveness(tape);
    nn_exec x = {.tape = tape};
    bool seeded = false;
    for (size_t k = 0; k < tape->steps; k++) {
        const nn_step *s = &tape->step[k];
        /* Roots are seeded when the forward pass is over, so that their gradients do not lie about during it. */
        if (k >= tape->nodes && !seeded) {
            if (!seed_roots(tape, roots, count))
                return false;
            seeded = true;
        }
        bool ok = s->pass == NN_PASS_FORWARD ? run_forward(&x, s->node) : run_backward(&x, s->node);
        if (!ok)
            return cs_fail_in("%s of %s", s->pass == NN_PASS_FORWARD ? "forward" : "backward", s->node->op->name);
        for (int i = 0; i < s->node->ins; i++)
            if (s->release_in & 1u << i)
                release(tape, s->node->in[i]);
        for (int i = 0; i < s->node->outs; i++)
            if (s->release_out & 1u << i)
                release(tape, s->node->out[i]);
    }
    return true;
}

bool nn_read(nn_tape *tape, const nn_tensor *t, void *host)
{
    vk_range r = owner(t)->data;
    if (!r.block)
        return cs_fail("read: the tensor was not kept");
    r.size = nn_bytes(t);
    return vk_read(tape->device, r, host, r.size);
}

bool nn_read_grad(nn_tape *tape, const nn_tensor *t, float *host)
{
    const nn_tensor *o = owner(t);
    vk_range r = o->grad;
    if (!r.block || (!o->grad_started && !o->param)) { /* nothing contributed: the gradient is zero */
        memset(host, 0, (size_t)nn_count(t) * sizeof *host);
        return true;
    }
    r.size = nn_bytes(t);
    if (t->dtype == NN_F32)
        return vk_read(tape->device, r, host, r.size);
    uint16_t *narrow = cs_alloc((size_t)r.size, 1, "a gradient");
    bool ok = narrow && vk_read(tape->device, r, narrow, r.size);
    if (ok)
        nn_widen(t->dtype, narrow, (size_t)nn_count(t), host);
    free(narrow);
    return ok;
}

/* ---- for operator authors --------------------------------------------------------------------------------------- */

vk_device *nn_device(const nn_exec *x)
{
    return x->tape->device;
}

static vk_bind data_bind(const nn_tensor *t, uint32_t access)
{
    return t ? (vk_bind){owner(t)->data, access} : (vk_bind){{0}, access};
}

vk_bind nn_read_bind(const nn_tensor *t)
{
    return data_bind(t, VK_READ);
}

vk_bind nn_texel_bind(const nn_tensor *t)
{
    return data_bind(t, VK_READ | VK_TEXEL);
}

vk_bind nn_write_bind(const nn_tensor *t)
{
    return data_bind(t, VK_WRITE);
}

nn_operand nn_product_operand(const nn_node *n, const nn_tensor *t)
{
    if (!t)
        return (nn_operand){0};
    const nn_param *p = owner(t)->param;
    if (p && p->narrow.block && p->narrow_type == n->precision)
        return (nn_operand){p->narrow, p->narrow_type};
    return (nn_operand){owner(t)->data, t->dtype};
}

vk_bind nn_dout_bind(const nn_tensor *t)
{
    return (vk_bind){owner(t)->grad, VK_READ};
}

bool nn_wants_grad(const nn_tensor *t)
{
    return t && t->wants_grad;
}

/* Gives a tensor that shares its gradient's memory a copy of its own, to be added to. */
static bool unshare_gradient(nn_tape *tape, nn_tensor *t)
{
    if (!t->grad_holders || *t->grad_holders == 1)
        return true;
    vk_range shared = t->grad;
    drop_gradient(tape, t);
    return allocate(tape, t, &t->grad, "a gradient") && vk_copy(tape->device, t->grad, shared);
}

bool nn_hand_gradient(nn_exec *x, const nn_tensor *out, nn_tensor *in)
{
    nn_tensor *from = owner(out), *to = owner(in);
    if (to->param || to->grad_started || to->dtype != from->dtype)
        return false;
    if (!from->grad_holders && !(from->grad_holders = nn_tape_take(x->tape, sizeof *from->grad_holders))) {
        x->failed = true;
        return true;
    }
    if (!*from->grad_holders)
        *from->grad_holders = 1;
    ++*from->grad_holders;
    to->grad_holders = from->grad_holders;
    to->grad = from->grad;
    to->grad_started = true;
    return true;
}

vk_bind nn_din_bind(nn_exec *x, nn_tensor *t, bool *accumulate)
{
    nn_tensor *o = owner(t);
    *accumulate = o->param || o->grad_started;
    if (!o->param && (!unshare_gradient(x->tape, o) || !allocate(x->tape, o, &o->grad, "a gradient")))
        x->failed = true;
    o->grad_started = true;
    return (vk_bind){o->grad, *accumulate ? VK_READ | VK_WRITE : VK_WRITE};
}

vk_bind nn_scratch(nn_exec *x, uint64_t bytes)
{
    if (x->scratches == NN_MAX_SCRATCH) {
        x->failed = true;
        cs_fail("an operator takes more than %d scratch ranges", NN_MAX_SCRATCH);
        return (vk_bind){{0}, VK_READ | VK_WRITE};
    }
    vk_range *r = &x->scratch[x->scratches++];
    *r = vk_alloc(x->tape->device, bytes, VK_MEMORY_DEVICE, "scratch");
    x->failed |= !r->block;
    return (vk_bind){*r, VK_READ | VK_WRITE};
}
