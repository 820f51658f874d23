#version 450
#extension GL_GOOGLE_include_directive : require
// Attention, gradient of the queries: with p = exp(scale q k^T - lse), dp = dy v^T and delta = sum(dy * y) of each row,
// dq = scale (p * (dp - delta)) k. Writes delta for the gradient of keys and values. Groups: query tiles, heads *
// CHUNKS, batch.
#include "attention.glsl"

ROWS_IN(0, qkv)
ROWS_IN(1, output_gradient) // [B, T, heads, WIDTH] or, PICKED, [R, heads, WIDTH]
ROWS_IN(2, outputs)
#define LISTS 3
layout(binding = 6, std430) readonly buffer Sums { float lse[]; };      // [B, heads, queries]
layout(binding = 7, std430) writeonly buffer Deltas { float delta[]; }; // [B, heads, queries]
ROWS_OUT(8, gradient)

uint lane, batch, head, chunk, key_head;

#include "attention_queries.glsl"

uint row_of(uint j)
{
    return batch * push.keys + min(j, push.keys - 1);
}

vec4 query(uint row, uint c)
{
    return qkv_at(row * push.q_row + push.q_first + head * WIDTH, c);
}

vec4 key(uint j, uint c)
{
    return qkv_at(row_of(j) * push.k_row + push.k_first + key_head * WIDTH, c);
}

vec4 value(uint j, uint c)
{
    return qkv_at(row_of(j) * push.v_row + push.v_first + key_head * WIDTH, c);
}

vec4 dy(uint row, uint c)
{
    return output_gradient_at((row * push.heads + head) * WIDTH, c);
}

vec4 y(uint row, uint c)
{
    return outputs_at((row * push.heads + head) * WIDTH, c);
}

#define VALUE_PARTS CHUNKS
#include "attention_key_tile.glsl"

vec4 q[ROWS][CHUNK], g[ROWS][CHUNK], dq[ROWS][CHUNK];
float row_lse[ROWS], row_delta[ROWS]; // lse in units of log 2

void load_rows(uint first, uint part)
{
    [[unroll]] for (uint r = 0; r < ROWS; r++)
        [[unroll]] for (uint c = 0; c < CHUNK; c++) {
            uint i = first + r * LANES;
            q[r][c] = query(query_row(i, pick[r]), part * CHUNK + c) * (push.scale * LOG2E);
            g[r][c] = dy(output_row(i, pick[r]), part * CHUNK + c);
        }
}

// Adds what keys u .. u + BLOCK - 1 of the tile contribute.
void attend(uint first, uint j, uint u)
{
    float s[ROWS][BLOCK], dp[ROWS][BLOCK];
    [[unroll]] for (uint r = 0; r < ROWS; r++)
        [[unroll]] for (uint t = 0; t < BLOCK; t++) {
            s[r][t] = -row_lse[r];
            dp[r][t] = -row_delta[r];
        }
    uint part = 0;
    do {
        if (CHUNKS > 1)
            load_rows(first, part);
        take_keys(j, part);
        take_values(j, part);
        key_scores(s, q, u, part);
        value_scores(dp, g, u, part);
    } while (++part < CHUNKS);
    [[unroll]] for (uint r = 0; r < ROWS; r++)
        [[unroll]] for (uint t = 0; t < BLOCK; t++)
            s[r][t] = visible(r, j, u + t) ? exp2(s[r][t]) * dp[r][t] : 0;
    if (CHUNKS > 1)
        take_keys(j, chunk);
    key_sums(dq, s, u, chunk);
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
        uint i = first + r * LANES;
        bool inside = i < push.queries;
        row_lse[r] = inside ? lse[(batch * push.heads + head) * push.queries + i] * LOG2E : 0;
        row_delta[r] = 0;
        uint row = output_row(i, pick[r]), c = 0;
        do {
            [[unroll]] for (uint d = 0; d < CHUNK; d++)
                row_delta[r] += dot(y(row, c + d), dy(row, c + d));
            c += CHUNK;
        } while (c < WIDTH);
        if (inside && chunk == 0)
            delta[(batch * push.heads + head) * push.queries + i] = row_delta[r];
        [[unroll]] for (uint c = 0; c < CHUNK; c++)
            dq[r][c] = vec4(0);
    }
    load_rows(first, chunk);
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
    uint c = 0;
    do {
        [[unroll]] for (uint r = 0; r < ROWS; r++) {
            uint i = first + r * LANES;
            if (is_query(i, pick[r]))
                store_gradient(query_row(i, pick[r]) * push.q_row + push.q_first + head * WIDTH + chunk * CHUNK + c,
                               push.scale * dq[r][0]);
            NEXT_VECTOR(dq[r]);
        }
    } while (++c < CHUNK);
}
