#version 450
#extension GL_GOOGLE_include_directive : require
// Attention, forward (Dao et al. 2022, with an online softmax per lane): y = softmax(scale q k^T) v over the visible
// keys, and the row sums as lse = log(sum(exp(scale q k^T))) for the backward pass. Groups: query tiles, heads *
// CHUNKS, batch.
#include "attention.glsl"

ROWS_IN(0, queries) // addressed by push.q_*
ROWS_IN(1, keys)
ROWS_IN(2, values)
#define LISTS 3
ROWS_OUT(6, y) // [B, queries, heads, WIDTH] or, PICKED, [R, heads, WIDTH]
layout(binding = 7, std430) writeonly buffer Sums { float lse[]; }; // [B, heads, queries]

uint lane, batch, head, chunk, key_head;

#include "attention_queries.glsl"

vec4 query(uint row, uint c)
{
    return queries_at(row * push.q_row + push.q_first + head * WIDTH, c);
}

vec4 key(uint j, uint c)
{
    uint row = batch * push.keys + min(j, push.keys - 1);
    return keys_at(row * push.k_row + push.k_first + key_head * WIDTH, c);
}

vec4 value(uint j, uint c)
{
    uint row = batch * push.keys + min(j, push.keys - 1);
    return values_at(row * push.v_row + push.v_first + key_head * WIDTH + chunk * CHUNK, c);
}

float shrink[ROWS]; // of the sums so far, as the peak rises

#define VALUE_PARTS 1
#define START(sum, r) ((sum) * shrink[r])
#include "attention_key_tile.glsl"

// Score of a hidden key; with it, and at any peak from LOWEST up, exp2() is 0 (or too small to count).
const float HIDDEN = -1e30, LOWEST = -1e25;

vec4 q[ROWS][CHUNK], o[ROWS][CHUNK];
float peak[ROWS], sum[ROWS];

void load_queries(uint first, uint part)
{
    [[unroll]] for (uint r = 0; r < ROWS; r++)
        [[unroll]] for (uint c = 0; c < CHUNK; c++)
            q[r][c] = query(query_row(first + r * LANES, pick[r]), part * CHUNK + c) * (push.scale * LOG2E);
}

// Adds keys u .. u + BLOCK - 1 of the tile to the running softmax.
void attend(uint first, uint j, uint u)
{
    float s[ROWS][BLOCK];
    [[unroll]] for (uint r = 0; r < ROWS; r++)
        [[unroll]] for (uint t = 0; t < BLOCK; t++)
            s[r][t] = 0;
    uint part = 0;
    do {
        if (CHUNKS > 1)
            load_queries(first, part);
        take_keys(j, part);
        key_scores(s, q, u, part);
    } while (++part < CHUNKS);
    take_values(j, 0);
    [[unroll]] for (uint r = 0; r < ROWS; r++) {
        float top = peak[r];
        [[unroll]] for (uint t = 0; t < BLOCK; t++) {
            s[r][t] = visible(r, j, u + t) ? s[r][t] : HIDDEN;
            top = max(top, s[r][t]);
        }
        shrink[r] = exp2(peak[r] - top);
        peak[r] = top;
        sum[r] *= shrink[r];
        [[unroll]] for (uint t = 0; t < BLOCK; t++) {
            s[r][t] = exp2(s[r][t] - top);
            sum[r] += s[r][t];
        }
    }
    value_sums(o, s, u, 0);
}

void main()
{
    lane = gl_LocalInvocationID.x;
    batch = gl_WorkGroupID.z;
    head = gl_WorkGroupID.y / CHUNKS;
    chunk = gl_WorkGroupID.y % CHUNKS;
    key_head = head / push.group;
    uint first = gl_WorkGroupID.x * LANES * ROWS + lane; // the lane's first row; the next ones follow LANES apart

    survey_rows(first);
    [[unroll]] for (uint r = 0; r < ROWS; r++) {
        peak[r] = LOWEST;
        sum[r] = 0;
        [[unroll]] for (uint c = 0; c < CHUNK; c++)
            o[r][c] = vec4(0);
    }
    load_queries(first, 0);
    uint end = workgroup_end();
    uint j = seek(0, end);
    do {
        open_tile(j);
        uint u = 0;
        do {
            attend(first, j, u);
            u += BLOCK;
        } while (u < TILE);
        j = seek(j + TILE, end);
    } while (j < end);
    [[unroll]] for (uint r = 0; r < ROWS; r++) {
        uint i = first + r * LANES;
        shrink[r] = segment[r] < 0 ? 0 : 1 / sum[r]; // of padding nothing is left
        if (i < push.queries && chunk == 0)
            lse[(batch * push.heads + head) * push.queries + i] =
                segment[r] < 0 ? 0 : (peak[r] + log2(sum[r])) * LN2;
    }
    uint c = 0;
    do {
        [[unroll]] for (uint r = 0; r < ROWS; r++) {
            uint i = first + r * LANES;
            if (is_query(i, pick[r]))
                store_y((output_row(i, pick[r]) * push.heads + head) * WIDTH + chunk * CHUNK + c, o[r][0] * shrink[r]);
            NEXT_VECTOR(o[r]);
        }
    } while (++c < CHUNK);
}
