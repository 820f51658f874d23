/* Rows of a table by id, with rows of features (pictures) spliced in where the id is negative. */
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "nn/launch.h"
#include "nn/op_table.h"
#include "nn/op_util.h"
#include "nn/ops.h"

/* ---- the index --------------------------------------------------------------------------------------------------- */

typedef struct place {
    int32_t id, position;
} place;

static int by_id_and_position(const void *a, const void *b)
{
    const place *x = a, *y = b;
    if (x->id != y->id)
        return x->id < y->id ? -1 : 1;
    return x->position < y->position ? -1 : x->position > y->position;
}

/* The positions [n] and what follows them are both large enough to sort in: (id, position) pairs take 2n of the 3n +
 * 2. */
void nn_embedding_index(const int32_t *ids, int64_t n, int32_t *index)
{
    place *sorted = (place *)(index + n);
    int32_t used = 0;
    for (int64_t i = 0; i < n; i++)
        if (ids[i] >= 0)
            sorted[used++] = (place){ids[i], (int32_t)i};
    qsort(sorted, (size_t)used, sizeof *sorted, by_id_and_position);
    for (int32_t i = 0; i < used; i++)
        index[i] = sorted[i].position;
    for (int64_t i = used; i < n; i++)
        index[i] = -1;

    int32_t *start = index + n, *distinct = start + n + 1;
    int64_t count = 0;
    for (int32_t i = 0; i < used; i++) {
        int32_t id = ids[index[i]];
        if (i && id == ids[index[i - 1]])
            continue;
        start[count] = i;
        distinct[count++] = id;
    }
    start[count] = used;
    for (int64_t i = count + 1; i <= n; i++)
        start[i] = -1;
    for (int64_t i = count; i <= n; i++)
        distinct[i] = -1;
}

/* ---- the operator ------------------------------------------------------------------------------------------------ */

enum { TABLE, IDS, INDEX, FEATURES, PLACES };

nn_tensor *nn_embedding(nn_tape *tape, nn_tensor *table, nn_tensor *ids, nn_tensor *index, nn_tensor *features,
                        nn_tensor *places)
{
    nn_tensor *in[] = {table, ids, index, features, places}, *y;
    nn_apply(tape, &nn_op_embedding, NULL, in, 5, &y);
    return y;
}

static bool infer(nn_node *n)
{
    const nn_tensor *table = n->in[TABLE], *features = n->in[FEATURES];
    int64_t count = nn_count(n->in[IDS]);
    if (!nn_expect_floats("embedding", "table", table) || !nn_expect_integers("embedding", "ids", n->in[IDS], count) ||
        !nn_expect_integers("embedding", "index", n->in[INDEX], 3 * count + 2))
        return false;
    if (table->dims != 2)
        return cs_fail("embedding: table %s must be [entries, columns]", nn_shape_string(table).text);
    n->out[0]->dtype = NN_F32;
    n->out[0]->dims = 2;
    n->out[0]->shape[0] = count;
    n->out[0]->shape[1] = nn_cols(table);
    if (!features != !n->in[PLACES])
        return cs_fail("embedding: features and places come together");
    if (!features)
        return true;
    if (!nn_expect_values("embedding", "features", features))
        return false;
    if (nn_cols(features) != nn_cols(table))
        return cs_fail("embedding: features %s must have the table's %lld columns", nn_shape_string(features).text,
                       (long long)nn_cols(table));
    return nn_expect_integers("embedding", "places", n->in[PLACES], nn_rows(features));
}

/* The table's rows that are looked up, not the table. */
static double bytes(const nn_node *n)
{
    return 2.0 * (double)nn_bytes(n->out[0]) + 4.0 * (double)nn_count(n->in[IDS]);
}

static bool forward(nn_exec *x, const nn_node *n)
{
    nn_gather_launch g = {
        .index = nn_read_bind(n->in[IDS]),
        .from = nn_read_bind(n->in[TABLE]),
        .to = nn_write_bind(n->out[0]),
        .sources = nn_rows(n->in[TABLE]),
        .rows = nn_rows(n->out[0]),
        .cols = nn_cols(n->out[0]),
    };
    if (!nn_gather(nn_device(x), &g))
        return false;
    if (!n->in[FEATURES])
        return true;
    g.from = nn_read_bind(n->in[FEATURES]);
    g.from_type = n->in[FEATURES]->dtype;
    g.sources = nn_rows(n->in[FEATURES]);
    g.flags = NN_GATHER_COMPLEMENT;
    return nn_gather(nn_device(x), &g);
}

static bool backward_table(nn_exec *x, const nn_node *n)
{
    int64_t positions = nn_count(n->in[IDS]), entries = nn_rows(n->in[TABLE]), cols = nn_cols(n->in[TABLE]);
    bool accumulate;
    vk_bind dtable = nn_din_bind(x, n->in[TABLE], &accumulate);
    if (!accumulate && !vk_fill(nn_device(x), dtable.range, 0))
        return false;
    dtable.access = VK_READ | VK_WRITE;
    int64_t step = nn_slice_rows(nn_device(x), "embedding", entries, (uint64_t)cols * 4);
    for (int64_t first = 0; step && first < entries; first += step) {
        int64_t bound = first + step < entries ? step : entries - first;
        uint32_t push[] = {(uint32_t)positions, (uint32_t)first, (uint32_t)bound};
        vk_bind slice = nn_slice_bind(dtable, first, bound, (uint64_t)cols * 4);
        bool ok = nn_launch_rows(nn_device(x), &(nn_launch){
            .kernel = "embedding_backward",
            .rows = positions,
            .cols = cols,
            .width = nn_row_width(nn_device(x), cols),
            .bind = {{nn_read_bind(n->in[INDEX]), 0}, {nn_dout_bind(n->out[0]), 0, true},
                     {slice, 0}, nn_row_old((nn_row_bind){slice, 0}, true)},
            .push = push,
            .push_bytes = sizeof push,
            .flops = (double)(positions * cols),
        });
        if (!ok)
            return false;
    }
    return step > 0;
}

static bool backward_features(nn_exec *x, const nn_node *n)
{
    bool accumulate;
    vk_bind dfeatures = nn_din_bind(x, n->in[FEATURES], &accumulate);
    return nn_gather(nn_device(x), &(nn_gather_launch){
        .index = nn_read_bind(n->in[PLACES]),
        .from = nn_dout_bind(n->out[0]),
        .to = dfeatures,
        .to_type = n->in[FEATURES]->dtype,
        .sources = nn_rows(n->out[0]),
        .rows = nn_rows(n->in[FEATURES]),
        .cols = nn_cols(n->out[0]),
        .flags = accumulate ? NN_GATHER_ACCUMULATE : NN_GATHER_ZERO_MISSING,
    });
}

static bool backward(nn_exec *x, const nn_node *n)
{
    if (nn_wants_grad(n->in[TABLE]) && !backward_table(x, n))
        return false;
    return !nn_wants_grad(n->in[FEATURES]) || backward_features(x, n);
}

/* ---- references -------------------------------------------------------------------------------------------------- */

static void ref_forward(const nn_ref *r)
{
    int64_t rows = nn_rows(r->node->out[0]), cols = nn_cols(r->node->out[0]);
    for (int64_t i = 0; i < rows; i++) {
        int64_t id = (int64_t)r->in[IDS][i];
        const double *row = id >= 0 ? r->in[TABLE] + id * cols : r->in[FEATURES] + (-1 - id) * cols;
        memcpy(r->out[0] + i * cols, row, (size_t)cols * sizeof *row);
    }
}

static void ref_backward(const nn_ref *r)
{
    int64_t rows = nn_rows(r->node->out[0]), cols = nn_cols(r->node->out[0]);
    for (int64_t i = 0; i < rows; i++) {
        int64_t id = (int64_t)r->in[IDS][i];
        double *to = r->din[id >= 0 ? TABLE : FEATURES];
        for (int64_t c = 0; to && c < cols; c++)
            to[(id >= 0 ? id : -1 - id) * cols + c] += r->dout[0][i * cols + c];
    }
}

/* ---- the row ----------------------------------------------------------------------------------------------------- */

/* Ids with repetitions; every third position, while there are features, takes one, last first. */
static void fill_ids(const nn_case *c, double *ids)
{
    int64_t n = c->in[IDS].shape[0], features = c->in[FEATURES].fill == NN_FILL_NONE ? 0 : c->in[FEATURES].shape[0];
    for (int64_t i = 0; i < n; i++)
        ids[i] = i % 3 == 1 && i / 3 < features - 1 ? (double)(-1 - (features - 1 - i / 3))
                                                    : (double)(i * i * 7 % c->in[TABLE].shape[0]);
}

static void fill_index(const nn_case *c, const double *values, double *index)
{
    int64_t n = c->in[IDS].shape[0], words = 3 * n + 2;
    int32_t *ids = cs_alloc((size_t)(n + words), sizeof *ids, "test ids");
    for (int64_t i = 0; ids && i < n; i++)
        ids[words + i] = (int32_t)values[i];
    if (ids)
        nn_embedding_index(ids + words, n, ids);
    for (int64_t i = 0; i < words; i++)
        index[i] = ids ? ids[i] : -1;
    free(ids);
}

static void fill(const nn_case *c, int i, double *const *values)
{
    if (i == IDS) {
        fill_ids(c, values[IDS]);
    } else if (i == INDEX) {
        fill_index(c, values[IDS], values[INDEX]);
    } else {
        for (int64_t f = 0; f < c->in[PLACES].shape[0]; f++)
            values[PLACES][f] = -1;
        for (int64_t p = 0; p < c->in[IDS].shape[0]; p++)
            if (values[IDS][p] < 0)
                values[PLACES][-1 - (int64_t)values[IDS][p]] = (double)p;
    }
}

#define TEXT(entries, cols, n) \
    {NN_F32, 2, {entries, cols}, NN_FILL_NORMAL}, {NN_I32, 1, {n}, NN_FILL_CUSTOM}, \
        {NN_I32, 1, {3 * (n) + 2}, NN_FILL_CUSTOM}
#define PICTURE(features, cols) {NN_F32, 2, {features, cols}, NN_FILL_NORMAL}, {NN_I32, 1, {features}, NN_FILL_CUSTOM}

static const nn_case cases[] = {
    {.name = "text only", .in = {TEXT(50, 64, 37)}, .fill = fill},
    {.name = "features spliced in, one unused", .in = {TEXT(11, 16, 30), PICTURE(8, 16)}, .fill = fill},
    {.name = "odd columns", .in = {TEXT(5, 7, 9), PICTURE(3, 7)}, .fill = fill},
    {.name = "one token", .in = {TEXT(1, 1, 1)}, .fill = fill},
    {.name = "8192 of 32000 rows of 64", .in = {TEXT(32000, 64, 8192)}, .fill = fill, .bench = true},
    {.name = "1024 of 32000 rows of 1024", .in = {TEXT(32000, 1024, 1024)}, .fill = fill, .bench = true},
};

const nn_op nn_op_embedding = {
    .name = "embedding",
    .ins = 5,
    .outs = 1,
    .half_in = 1 << FEATURES,
    .optional = 1 << FEATURES | 1 << PLACES,
    .keep_in = 1 << INDEX | 1 << PLACES,
    .infer = infer,
    .forward = forward,
    .backward = backward,
    .ref_forward = ref_forward,
    .ref_backward = ref_backward,
    .bytes = bytes,
    .cases = cases,
    .case_count = sizeof cases / sizeof *cases,
};
