#include "nn/op_util.h"

#include <stdio.h>
#include <string.h>

#include "base/error.h"

bool nn_same_shape(const nn_tensor *a, const nn_tensor *b)
{
    return a->dims == b->dims && !memcmp(a->shape, b->shape, (size_t)a->dims * sizeof *a->shape);
}

nn_shape_text nn_shape_string(const nn_tensor *t)
{
    nn_shape_text s = {"["};
    size_t n = 1;
    for (int i = 0; i < t->dims; i++)
        n += (size_t)snprintf(s.text + n, sizeof s.text - n, "%s%lld", i ? ", " : "", (long long)t->shape[i]);
    snprintf(s.text + n, sizeof s.text - n, "]");
    return s;
}

bool nn_expect_values(const char *op, const char *name, const nn_tensor *t)
{
    return nn_is_float(t->dtype) || cs_fail("%s: %s must be floats, not integers", op, name);
}

bool nn_expect_floats(const char *op, const char *name, const nn_tensor *t)
{
    return t->dtype == NN_F32 || cs_fail("%s: %s must be f32, not %s", op, name, nn_dtype_name(t->dtype));
}

bool nn_expect_row(const char *op, const char *name, const nn_tensor *t, int64_t count)
{
    if (!nn_expect_floats(op, name, t))
        return false;
    return nn_count(t) == count ||
           cs_fail("%s: %s %s must have %lld elements", op, name, nn_shape_string(t).text, (long long)count);
}

bool nn_expect_integers(const char *op, const char *name, const nn_tensor *t, int64_t count)
{
    if (t->dtype != NN_I32)
        return cs_fail("%s: %s must be i32, not %s", op, name, nn_dtype_name(t->dtype));
    return nn_count(t) == count ||
           cs_fail("%s: %s %s must have %lld elements", op, name, nn_shape_string(t).text, (long long)count);
}

bool nn_expect_alike(const char *op, const char *a_name, const nn_tensor *a, const char *b_name, const nn_tensor *b)
{
    if (!nn_expect_values(op, a_name, a) || !nn_expect_values(op, b_name, b))
        return false;
    return nn_same_shape(a, b) || cs_fail("%s: %s %s and %s %s must have one shape", op, a_name,
                                          nn_shape_string(a).text, b_name, nn_shape_string(b).text);
}

enum nn_dtype nn_product_type(const nn_node *n, int64_t cols)
{
    return cols % NN_HALF_COLS ? NN_F32 : n->precision;
}

void nn_shape_like(nn_tensor *out, const nn_tensor *t)
{
    out->dtype = t->dtype;
    out->dims = t->dims;
    memcpy(out->shape, t->shape, sizeof t->shape);
}

static uint32_t take_gradient(nn_exec *x, nn_tensor *t, vk_bind *bind, uint32_t want, uint32_t add)
{
    bool accumulate;
    *bind = (vk_bind){.access = VK_WRITE};
    if (!nn_wants_grad(t))
        return 0;
    *bind = nn_din_bind(x, t, &accumulate);
    return want | (accumulate ? add : 0);
}

bool nn_pair_backward(nn_exec *x, const nn_node *n, nn_pair_launch launch)
{
    const vk_bind none = {.access = VK_WRITE};
    vk_bind da, db;
    uint32_t a = take_gradient(x, n->in[0], &da, NN_WANT_A, NN_ADD_A);
    uint32_t b = take_gradient(x, n->in[1], &db, NN_WANT_B, NN_ADD_B);
    bool same = a && b && da.range.block == db.range.block && da.range.offset == db.range.offset;
    return same ? launch(x, n, da, none, a) && launch(x, n, none, db, b) : launch(x, n, da, db, a | b);
}
