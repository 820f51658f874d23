/* Tensors, the tape and its operators.
 *
 * A step is built, then run. Building calls operators (nn/ops.h), which only check shapes and append nodes to the tape;
 * running walks the nodes forward, then backward, and records their kernels. Because the whole step is known before the
 * first kernel is recorded, each activation's memory is taken right before its first use and returned right after its
 * last one, segments can be recomputed instead of kept, and a dry run predicts the peak.
 *
 * Error rule for building: a call with a NULL tensor returns NULL at once and keeps the first error, so a chain of
 * calls is checked once, at its end. */
#ifndef NN_NN_H
#define NN_NN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vk/vk.h"

/* NN_F16 (IEEE binary16) and NN_BF16 are storage only: arithmetic is in f32. Two values to a word in memory, the lower
 * half first. Tensors of them have rows of a multiple of 8: rows are whole texels, and no two invocations ever write
 * halves of one word. */
enum nn_dtype { NN_F32, NN_I32, NN_F16, NN_BF16 };
uint64_t nn_dtype_size(enum nn_dtype type); /* bytes of an element */
bool nn_is_half(enum nn_dtype type);
bool nn_is_float(enum nn_dtype type);
const char *nn_dtype_name(enum nn_dtype type); /* "f32", "i32", "f16", "bf16" */

enum { NN_MAX_DIMS = 4, NN_MAX_IN = 10, NN_MAX_OUT = 8, NN_MAX_PARAM_BYTES = 128, NN_HALF_COLS = 8 };

typedef struct nn_tape nn_tape;
typedef struct nn_exec nn_exec;
typedef struct nn_node nn_node;
typedef struct nn_op nn_op;
typedef struct nn_param nn_param;

/* A dense row-major tensor. Owned by the tape (activations, inputs) or by a parameter set. The fields are for
 * operators; models use the functions. */
typedef struct nn_tensor {
    enum nn_dtype dtype;
    int dims;
    int64_t shape[NN_MAX_DIMS]; /* outermost first; 1 beyond dims */
    struct nn_tensor *base;     /* of a reshaped view: the tensor that has the memory; else NULL */
    nn_param *param;            /* of a parameter; else NULL */
    bool external;              /* data belongs to someone else */
    bool wants_grad;            /* some parameter or watched input is behind it */
    bool keep, keep_grad;       /* survive the run, until the next nn_tape_reset() */
    bool needed;                /* later in the program; scratch of the liveness scan */
    vk_range data, grad;        /* while alive; grad of a parameter lives in its set */
    bool grad_started;          /* this run's backward pass has contributed to grad */
    int *grad_holders;          /* how many tensors hold the memory of grad; NULL: this one alone */
    const void *host;           /* of an input: bytes uploaded at its first use in a run */
} nn_tensor;

/* Elements, and elements before the last dimension ("rows"). */
int64_t nn_count(const nn_tensor *t);
int64_t nn_rows(const nn_tensor *t);
int64_t nn_cols(const nn_tensor *t);
/* Bytes of the values. */
uint64_t nn_bytes(const nn_tensor *t);

/* ---- building --------------------------------------------------------------------------------------------------- */

nn_tape *nn_tape_new(vk_device *device);
/* Forgets all nodes and releases all memory of the last run (kept tensors too), keeping the tape for the next step. */
void nn_tape_reset(nn_tape *tape);
void nn_tape_free(nn_tape **tape);

/* Type that operators called from now on store what feeds matrix products in: NN_F32 (to begin with), NN_F16 or
 * NN_BF16. As in PyTorch's autocast, normalised rows, projections, activations and attention take that type; sums (the
 * residual stream), statistics, scores, losses and the gradients of parameters stay f32. A gradient has the type of
 * its tensor. Returns what was set before. */
enum nn_dtype nn_tape_set_precision(nn_tape *tape, enum nn_dtype precision);

/* From now on every root's gradient is `weight` times the float at `scale` (none: 1); roots are then losses of one
 * element. */
void nn_tape_set_loss_scale(nn_tape *tape, vk_range scale);

/* An input with the values at `host` (tensor order, nn_bytes() bytes), which must stay valid until the run. */
nn_tensor *nn_input(nn_tape *tape, enum nn_dtype dtype, int dims, const int64_t *shape, const void *host);
/* Zeroed host memory (up to 64 KiB) that lasts until the reset, as for an input's values; NULL on failure. */
void *nn_tape_take(nn_tape *tape, size_t bytes);
/* A tensor over device memory that someone else owns (a key/value cache); no gradient. */
nn_tensor *nn_external(nn_tape *tape, enum nn_dtype dtype, int dims, const int64_t *shape, vk_range data);
/* Marks an input as wanting a gradient (kept until reset). */
nn_tensor *nn_watch(nn_tensor *t);
/* Keeps the values until the reset, for nn_read() and for whoever binds them later. NULL is fine. */
nn_tensor *nn_keep(nn_tensor *t);
/* Another shape over the same elements; no kernel. */
nn_tensor *nn_reshape(nn_tape *tape, nn_tensor *t, int dims, const int64_t *shape);

/* Nodes between begin and end keep only what leaves the segment and are run again in the backward pass (activation
 * checkpointing). Not nested. */
void nn_recompute_begin(nn_tape *tape);
void nn_recompute_end(nn_tape *tape);

/* Appends one node; `params` (op->param_bytes bytes; NULL: zeros) is copied; a NULL tensor in `in` is an absent
 * optional input where the operator allows one (op->optional). out[i] receive the outputs (all the op has). Called by
 * the wrappers in nn/ops.h. */
bool nn_apply(nn_tape *tape, const nn_op *op, const void *params, nn_tensor *const *in, int ins, nn_tensor **out);

/* ---- running ---------------------------------------------------------------------------------------------------- */

/* Where the backward pass starts: `tensor` gets the gradient `weight` in every element, or the host values `seed`. */
typedef struct nn_root {
    nn_tensor *tensor;
    float weight;
    const float *seed;
} nn_root;

/* Records the forward pass and, if `roots` is not NULL, the backward pass, which adds to the gradients of the
 * parameters. Nothing is submitted and nothing waits. A tape runs once per reset. */
bool nn_tape_run(nn_tape *tape, const nn_root *roots, int count);

/* Reads a kept tensor (as it is stored: nn_bytes() bytes) or a kept gradient (widened to f32) to the host; submits and
 * waits. */
bool nn_read(nn_tape *tape, const nn_tensor *t, void *host);
bool nn_read_grad(nn_tape *tape, const nn_tensor *t, float *host);

/* ---- operators -------------------------------------------------------------------------------------------------- */

struct nn_node {
    const nn_op *op;
    nn_tensor *in[NN_MAX_IN], *out[NN_MAX_OUT];
    int ins, outs;
    int segment;             /* of recomputation; 0 = none */
    enum nn_dtype precision; /* the tape's when it was appended */
    _Alignas(8) unsigned char params[NN_MAX_PARAM_BYTES];
};

/* What the double-precision references see. Integer tensors come as their values. */
typedef struct nn_ref {
    const nn_node *node;            /* shapes and parameters */
    const double *in[NN_MAX_IN];    /* NULL: absent optional input */
    double *out[NN_MAX_OUT];        /* written by forward, read by backward */
    const double *dout[NN_MAX_OUT]; /* backward: NULL for integer and aux_out outputs */
    double *din[NN_MAX_IN];         /* backward: contributions are ADDED; NULL where not wanted */
} nn_ref;

/* How the selftest, the unit tests and the benchmark fill an input. */
enum nn_fill {
    NN_FILL_NONE,   /* absent optional input */
    NN_FILL_NORMAL, /* standard normal times `scale` (0 means 1) */
    NN_FILL_INDEX,  /* integers uniform in 0..below-1 */
    NN_FILL_CUSTOM, /* by the case's fill function */
};

/* One set of shapes and parameters that an operator is tested and timed with. */
typedef struct nn_case {
    const char *name;
    struct {
        enum nn_dtype dtype;
        int dims;
        int64_t shape[NN_MAX_DIMS];
        enum nn_fill fill;
        double scale;
        int below;
        bool no_grad;
    } in[NN_MAX_IN];
    const void *params;
    /* Writes input `i` (as doubles, also integers); called in order of i with what is already filled in values[0..i-1].
     */
    void (*fill)(const struct nn_case *c, int i, double *const *values);
    bool bench; /* a size for timing, skipped by the selftest */
} nn_case;

/* A row of the operator table (nn/op_table.c). */
struct nn_op {
    const char *name;
    int ins, outs;
    uint32_t optional;          /* bit i: input i may be absent */
    uint32_t keep_in, keep_out; /* bit i: backward reads input / output i */
    uint32_t aux_out;           /* bit i: float output i is a saved statistic or a log value and takes no gradient */
    uint32_t half_in;           /* bit i: input i may be F16 or BF16 */
    uint32_t adds_out;          /* bit i: backward adds to the gradient of output i itself (nn_din_bind) and hands it
                                   on; where nothing has contributed to it, it is not zeroed first */
    bool stops_gradient;        /* backward leaves out a path on purpose (stop-gradient): no finite differences */
    size_t param_bytes;         /* of the operator's parameter struct, <= NN_MAX_PARAM_BYTES */
    /* Checks inputs and parameters and fills dtype, dims, shape of every out[i]; errors name the operator. An output of
     * 0 dimensions is one that this node leaves out: it gets no memory. */
    bool (*infer)(nn_node *node);
    bool (*forward)(nn_exec *x, const nn_node *node);
    /* Adds to the gradient of every input that wants one (nn_grad_out). NULL: not differentiable. */
    bool (*backward)(nn_exec *x, const nn_node *node);
    void (*ref_forward)(const nn_ref *r);
    void (*ref_backward)(const nn_ref *r);
    /* Arithmetic of the forward pass, for profile and benchmark; NULL: none. */
    double (*flops)(const nn_node *node);
    /* Bytes that it must read and write at least; NULL: those of all inputs and outputs. */
    double (*bytes)(const nn_node *node);
    const nn_case *cases;
    int case_count;
};

extern const nn_op *const nn_op_table[];
extern const int nn_op_count;
const nn_op *nn_op_find(const char *name);

/* For operator authors. Binds are for vk_dispatch. */
vk_device *nn_device(const nn_exec *x);
vk_bind nn_read_bind(const nn_tensor *t);  /* values as storage buffer; NULL gives none */
vk_bind nn_texel_bind(const nn_tensor *t); /* values as texel buffer of 16-byte elements */
vk_bind nn_write_bind(const nn_tensor *t); /* values of an output, being produced */
vk_bind nn_dout_bind(const nn_tensor *t);  /* gradient of an output, ready (zero where nothing contributed) */
/* Operand of a product: the values of `t`, or of a parameter those in the node's precision. None for NULL. */
typedef struct nn_operand {
    vk_range range;
    enum nn_dtype type;
} nn_operand;
nn_operand nn_product_operand(const nn_node *n, const nn_tensor *t);
/* Whether backward has to produce the gradient of this input (false for NULL). */
bool nn_wants_grad(const nn_tensor *t);
/* Bind of an input's gradient; `*accumulate`: the kernel must add to what is there, else it must write every element.
 * Taking it counts as the contribution, so take it once per kernel that writes it. */
vk_bind nn_din_bind(nn_exec *x, nn_tensor *t, bool *accumulate);
/* Where an input's gradient is the output's and nothing has contributed to it yet, the input takes the memory instead
 * of a copy (whoever adds to it later gets its own). False where it has to be added or is of another type. Counts as
 * the contribution. */
bool nn_hand_gradient(nn_exec *x, const nn_tensor *out, nn_tensor *in);
/* Memory for this node's present pass only. */
vk_bind nn_scratch(nn_exec *x, uint64_t bytes);

/* ---- parameters ------------------------------------------------------------------------------------------------- */

enum nn_init { NN_INIT_ZERO, NN_INIT_ONE, NN_INIT_NORMAL, NN_INIT_UNIFORM }; /* normal: std; uniform: +- bound */

/* A parameter; its value, gradient and AdamW moments lie at equal offsets of four slabs of its set. */
struct nn_param {
    nn_tensor tensor;
    char name[128];
    enum nn_init init;
    float scale;
    bool decay;     /* weight decay applies: matrices; not norms and biases */
    bool trainable; /* has gradient and moments */
    int slab;
    uint64_t offset; /* elements in the slab */
    vk_range narrow; /* the values in 16 bits (nn_params_narrow), of matrices whose rows suit them; else none */
    enum nn_dtype narrow_type;
};

typedef struct nn_params nn_params;

nn_params *nn_params_new(vk_device *device);
void nn_params_free(nn_params **set);
/* Declares a parameter. Order of declaration is the order of names in a checkpoint. The tensor can be used on tapes
 * after nn_params_allocate(). NULL on failure (name used twice, bad shape). */
nn_tensor *nn_param_add(nn_params *set, const char *name, int dims, const int64_t *shape, enum nn_init init,
                        float scale, bool decay);
/* Parameters whose name starts with `prefix` get no gradient; before nn_params_allocate(). Returns how many these
 * are. */
size_t nn_params_freeze(nn_params *set, const char *prefix);
/* Lays out and allocates the slabs; with `training` also gradients and moments. Values are drawn from (seed, name):
 * adding a parameter does not change the others. */
bool nn_params_allocate(nn_params *set, bool training, uint64_t seed);
/* Records: copies of the matrices in 16 bits (NN_F16, NN_BF16; always the same), as what products on a tape of that
 * precision read. Before the first forward pass and after each nn_params_step(); only what has changed is copied.
 * NN_F32: nothing to do. */
bool nn_params_narrow(nn_params *set, enum nn_dtype type);
size_t nn_params_count(const nn_params *set);
nn_param *nn_params_at(const nn_params *set, size_t i);
nn_param *nn_params_find(const nn_params *set, const char *name);
uint64_t nn_params_elements(const nn_params *set, bool trainable_only);
/* What there is of a parameter; of one that is not trained only the value. */
enum nn_part { NN_VALUE, NN_GRADIENT, NN_FIRST_MOMENT, NN_SECOND_MOMENT, NN_PARTS };
/* Device memory of all parameters' values, gradients or moments, as allocated. */
uint64_t nn_params_bytes(const nn_params *set, enum nn_part part);
/* Host access, as f32 (submits and waits). */
bool nn_param_read(nn_params *set, const nn_param *p, enum nn_part part, float *host);
bool nn_param_write(nn_params *set, const nn_param *p, enum nn_part part, const float *host);

/* ---- optimizer -------------------------------------------------------------------------------------------------- */

/* AdamW (Loshchilov & Hutter 2019): decoupled decay, bias-corrected moments. */
typedef struct nn_adamw {
    float lr, beta1, beta2, eps, decay;
    float clip; /* global gradient norm above which all gradients are scaled down to it; 0 = off */
} nn_adamw;

/* Records: zero all gradients. Once per step, before the first micro-batch. */
bool nn_params_zero_grad(nn_params *set);
/* Records: global norm (two deterministic passes), clipping, AdamW over all slabs. `step` counts from 1. `norm`: a
 * range of two floats that receives the norm before clipping and the loss scale (1 where there is none); may be none.
 */
bool nn_params_step(nn_params *set, const nn_adamw *a, uint64_t step, vk_range norm);

/* Dynamic loss scaling, for gradients that pass through F16 (Micikevicius et al. 2018): the backward pass starts from
 * the loss times a scale that lives on the device, nn_params_step() takes it out again. A step whose gradients are not
 * finite is skipped, moments and all, and halves the scale (not below 1); `growth` good steps in a row double it. The
 * host never waits for it. */
typedef struct nn_loss_scale {
    float scale;      /* of the next step */
    uint32_t good;    /* steps since it last changed */
    uint32_t skipped; /* of all steps */
} nn_loss_scale;
bool nn_params_scale_loss(nn_params *set, const nn_loss_scale *start, uint32_t growth);
/* The scale on the device, for nn_tape_set_loss_scale(); none where losses are not scaled. */
vk_range nn_params_loss_scale(const nn_params *set);
/* Reads the state now (submits and waits); all 0 where losses are not scaled. */
bool nn_params_read_loss_scale(nn_params *set, nn_loss_scale *state);

enum nn_schedule { NN_SCHEDULE_CONSTANT, NN_SCHEDULE_LINEAR, NN_SCHEDULE_COSINE };
/* Learning rate of a 0-based step: linear warm-up over `warmup` steps, then towards min_ratio * peak at `total`. */
float nn_lr(enum nn_schedule kind, float peak, float min_ratio, uint64_t step, uint64_t warmup, uint64_t total);

#endif
