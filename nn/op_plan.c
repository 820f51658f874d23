/* The dispatch plan: a stable counting sort of (token, choice) pairs by expert. One dispatch by one workgroup where
 * pairs are few, else count, scan, place over tiles of pairs. */
#include "base/error.h"
#include "nn/moe_ops.h"
#include "nn/op_table.h"
#include "nn/op_util.h"

typedef struct plan_params {
    int32_t experts;
} plan_params;

enum { OUT_OFFSETS, OUT_ROWS, OUT_PLACES };
enum { TILE = 256 /* as in plan_tile.glsl */, ONE_DISPATCH = 65536 /* reads per pass of the single workgroup */ };

static int64_t experts_of(const nn_node *n)
{
    return ((const plan_params *)n->params)->experts;
}

bool nn_moe_plan(nn_tape *tape, nn_tensor *indices, int experts, nn_plan *out)
{
    nn_tensor *o[3];
    bool ok = nn_apply(tape, &nn_op_moe_plan, &(plan_params){experts}, &indices, 1, o);
    *out = (nn_plan){o[OUT_OFFSETS], o[OUT_ROWS], o[OUT_PLACES]};
    return ok;
}

static bool infer(nn_node *n)
{
    const nn_tensor *indices = n->in[0];
    int64_t experts = experts_of(n), pairs = nn_count(indices);
    if (!nn_expect_integers("moe_plan", "indices", indices, pairs))
        return false;
    if (experts < 1 || experts > NN_MAX_EXPERTS)
        return cs_fail("moe_plan: %lld experts, 1 to %d are possible", (long long)experts, NN_MAX_EXPERTS);
    if (pairs > (int64_t)TILE * 65535)
        return cs_fail("moe_plan: %lld routed rows are too many for one call", (long long)pairs);
    for (int i = 0; i < 3; i++)
        nn_shape_like(n->out[i], indices);
    n->out[OUT_OFFSETS]->dims = n->out[OUT_ROWS]->dims = 1;
    n->out[OUT_OFFSETS]->shape[0] = experts + 1;
    n->out[OUT_ROWS]->shape[0] = pairs;
    return true;
}

static bool plan_at_once(nn_exec *x, const nn_node *n, const uint32_t *push)
{
    return vk_run(nn_device(x), &(vk_dispatch){
        .kernel = "plan",
        .spec = {256, (uint32_t)experts_of(n)},
        .specs = 2,
        .bind = {nn_read_bind(n->in[0]), nn_write_bind(n->out[OUT_OFFSETS]), nn_write_bind(n->out[OUT_ROWS]),
                 nn_write_bind(n->out[OUT_PLACES])},
        .binds = 4,
        .push = push,
        .push_bytes = 8,
        .groups = {1, 1, 1},
        .bytes = 16.0 * (double)push[0],
    });
}

static bool plan_by_tiles(nn_exec *x, const nn_node *n, const uint32_t *push)
{
    uint32_t experts = (uint32_t)experts_of(n), tiles = (push[0] + TILE - 1) / TILE;
    vk_range counts = nn_scratch(x, (uint64_t)tiles * experts * 4).range;
    return vk_run(nn_device(x), &(vk_dispatch){
        .kernel = "plan_count",
        .spec = {64, experts},
        .specs = 2,
        .bind = {nn_read_bind(n->in[0]), {counts, VK_WRITE}},
        .binds = 2,
        .push = push,
        .push_bytes = 8,
        .groups = {tiles, 1, 1},
        .bytes = 4.0 * (double)push[0],
    }) && vk_run(nn_device(x), &(vk_dispatch){
        .kernel = "plan_scan",
        .spec = {256, experts},
        .specs = 2,
        .bind = {{counts, VK_READ | VK_WRITE}, nn_write_bind(n->out[OUT_OFFSETS])},
        .binds = 2,
        .push = &tiles,
        .push_bytes = 4,
        .groups = {1, 1, 1},
        .bytes = 12.0 * (double)tiles * experts,
    }) && vk_run(nn_device(x), &(vk_dispatch){
        .kernel = "plan_place",
        .spec = {64, experts},
        .specs = 2,
        .bind = {nn_read_bind(n->in[0]), {counts, VK_READ}, nn_write_bind(n->out[OUT_ROWS]),
                 nn_write_bind(n->out[OUT_PLACES])},
        .binds = 4,
        .push = push,
        .push_bytes = 8,
        .groups = {tiles, 1, 1},
        .bytes = 12.0 * (double)push[0],
    });
}

static bool forward(nn_exec *x, const nn_node *n)
{
    int64_t pairs = nn_count(n->in[0]);
    uint32_t push[] = {(uint32_t)pairs, (uint32_t)nn_cols(n->in[0])};
    return pairs * experts_of(n) <= ONE_DISPATCH ? plan_at_once(x, n, push) : plan_by_tiles(x, n, push);
}

static void ref_forward(const nn_ref *r)
{
    int64_t pairs = nn_count(r->node->in[0]), top_k = nn_cols(r->node->in[0]), place = 0;
    for (int64_t e = 0; e < experts_of(r->node); e++) {
        r->out[OUT_OFFSETS][e] = (double)place;
        for (int64_t i = 0; i < pairs; i++) {
            if (r->in[0][i] != (double)e)
                continue;
            r->out[OUT_ROWS][place] = (double)(i / top_k);
            r->out[OUT_PLACES][i] = (double)place++;
        }
    }
    r->out[OUT_OFFSETS][experts_of(r->node)] = (double)place;
}

static const nn_case cases[] = {
    {.name = "E 4, K 2", .in = {{NN_I32, 3, {2, 33, 2}, NN_FILL_INDEX, .below = 4}}, .params = &(const plan_params){4}},
    {.name = "E 8, three of them idle",
     .in = {{NN_I32, 2, {50, 1}, NN_FILL_INDEX, .below = 5}}, .params = &(const plan_params){8}},
    {.name = "E 1", .in = {{NN_I32, 2, {7, 1}, NN_FILL_INDEX, .below = 1}}, .params = &(const plan_params){1}},
    {.name = "E 200, more chunks than pairs",
     .in = {{NN_I32, 2, {3, 2}, NN_FILL_INDEX, .below = 200}}, .params = &(const plan_params){200}},
    {.name = "E 64, K 8, tiles",
     .in = {{NN_I32, 2, {251, 8}, NN_FILL_INDEX, .below = 64}}, .params = &(const plan_params){64}},
    {.name = "E 3, K 3, many tiles",
     .in = {{NN_I32, 2, {20001, 3}, NN_FILL_INDEX, .below = 3}}, .params = &(const plan_params){3}},
    {.name = "E 256, tiles",
     .in = {{NN_I32, 2, {500, 1}, NN_FILL_INDEX, .below = 256}}, .params = &(const plan_params){256}},
    {.name = "[32, 64], E 4, K 2",
     .in = {{NN_I32, 3, {32, 64, 2}, NN_FILL_INDEX, .below = 4}}, .params = &(const plan_params){4}, .bench = true},
    {.name = "[16384], E 64, K 4",
     .in = {{NN_I32, 2, {16384, 4}, NN_FILL_INDEX, .below = 64}}, .params = &(const plan_params){64}, .bench = true},
};

const nn_op nn_op_moe_plan = {
    .name = "moe_plan",
    .ins = 1,
    .outs = 3,
    .param_bytes = sizeof(plan_params),
    .infer = infer,
    .forward = forward,
    .ref_forward = ref_forward,
    .cases = cases,
    .case_count = sizeof cases / sizeof *cases,
};
