/* The same values in another float type. */
#include "base/error.h"
#include "nn/launch.h"
#include "nn/op_table.h"
#include "nn/op_util.h"
#include "nn/ops.h"

typedef struct cast_params {
    enum nn_dtype type;
} cast_params;

nn_tensor *nn_cast(nn_tape *tape, nn_tensor *x, enum nn_dtype type)
{
    nn_tensor *y;
    if (x && x->dtype == type)
        return x;
    return nn_apply(tape, &nn_op_cast, &(cast_params){type}, &x, 1, &y) ? y : NULL;
}

static bool infer(nn_node *n)
{
    const cast_params *p = (const cast_params *)n->params;
    nn_shape_like(n->out[0], n->in[0]);
    n->out[0]->dtype = p->type;
    return nn_expect_values("cast", "x", n->in[0]) && nn_expect_values("cast", "y", n->out[0]);
}

bool nn_cast_run(vk_device *device, nn_row_bind from, nn_row_bind to, int64_t count, bool accumulate)
{
    nn_flat f = nn_flat_shape(device, count);
    from.stride = (uint64_t)f.cols * nn_dtype_size(from.type);
    to.stride = (uint64_t)f.cols * nn_dtype_size(to.type);
    return nn_launch_rows(device, &(nn_launch){
        .kernel = "cast",
        .rows = f.rows,
        .cols = f.cols,
        .width = f.width,
        .turns = true,
        .bind = {from, to, nn_row_old(to, accumulate)},
        .spec = {accumulate},
    });
}

static bool forward(nn_exec *x, const nn_node *n)
{
    return nn_cast_run(nn_device(x), nn_row_in(n->in[0], 0), nn_row_out(n->out[0], 0), nn_count(n->in[0]), false);
}

static bool backward(nn_exec *x, const nn_node *n)
{
    return nn_pass_gradient(x, n->out[0], n->in[0]);
}

/* ---- references -------------------------------------------------------------------------------------------------- */

static void ref_forward(const nn_ref *r)
{
    for (int64_t i = 0; i < nn_count(r->node->in[0]); i++)
        r->out[0][i] = r->in[0][i];
}

static void ref_backward(const nn_ref *r)
{
    for (int64_t i = 0; r->din[0] && i < nn_count(r->node->in[0]); i++)
        r->din[0][i] += r->dout[0][i];
}

/* ---- the row ----------------------------------------------------------------------------------------------------- */

static const cast_params to_f32 = {NN_F32}, to_f16 = {NN_F16}, to_bf16 = {NN_BF16};

static const nn_case cases[] = {
    {.name = "[3, 5, 64]", .in = {{NN_F32, 3, {3, 5, 64}, NN_FILL_NORMAL}}, .params = &to_f32},
    {.name = "[1, 8] to f16", .in = {{NN_F32, 2, {1, 8}, NN_FILL_NORMAL}}, .params = &to_f16},
    {.name = "[70, 64] to bf16", .in = {{NN_F32, 2, {70, 64}, NN_FILL_NORMAL}}, .params = &to_bf16},
    {.name = "[4096, 1024]", .in = {{NN_F32, 2, {4096, 1024}, NN_FILL_NORMAL}}, .params = &to_f32, .bench = true},
    {.name = "[4096, 1024] to bf16", .in = {{NN_F32, 2, {4096, 1024}, NN_FILL_NORMAL}}, .params = &to_bf16,
     .bench = true},
};

const nn_op nn_op_cast = {
    .name = "cast",
    .ins = 1,
    .outs = 1,
    .half_in = 1,
    .param_bytes = sizeof(cast_params),
    .infer = infer,
    .forward = forward,
    .backward = backward,
    .ref_forward = ref_forward,
    .ref_backward = ref_backward,
    .cases = cases,
    .case_count = sizeof cases / sizeof *cases,
};
