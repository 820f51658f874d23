#version 450
#extension GL_GOOGLE_include_directive : require
// Attention, gradients of keys and values, summed over all queries of all heads that use them: with p, dp and delta as
// in attention_backward_query.comp, dv = p^T dy and dk = scale (p * (dp - delta))^T q. Lanes own key rows, tiles are of
// queries. Groups: key tiles, key heads * CHUNKS, batch.
#include "attention.glsl"

ROWS_IN(0, qkv)
ROWS_IN(1, output_gradient) // [B, T, heads, WIDTH] or, PICKED, [R, heads, WIDTH]
#define LISTS 2
layout(binding = 5, std430) readonly buffer Sums { float lse[]; };     // [B, heads, queries]
layout(binding = 6, std430) readonly buffer Deltas { float delta[]; }; // [B, heads, queries]
ROWS_OUT(7, gradient)

uint lane, batch, chunk, key_head;

#include "attention_queries.glsl"

uint row_of(uint j)
{
    return batch * push.keys + min(j, push.keys - 1);
}

vec4 query(uint head, uint row, uint c)
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

vec4 dy(uint head, uint row, uint c)
{
    return output_gradient_at((row * push.heads + head) * WIDTH, c);
}

// (lse in units of log 2, delta) of query i.
vec2 row_sums(uint head, uint i)
{
    uint at = (batch * push.heads + head) * push.queries + min(i, push.queries - 1);
    return vec2(lse[at] * LOG2E, delta[at]);
}

#include "attention_tile.glsl"

DEFINE_TILE(query, CHUNKS)
DEFINE_TILE(dy, CHUNKS)

#ifdef SHUFFLE
#define OWN_SUMS(head, i) row_sums(head, i + lane)
#define TILE_SUMS(own, t) subgroupShuffle(own, t)
#define TILE_MASK(t) subgroupShuffle(own_mask, t)
ivec2 own_pick; // of the lane's row of the tile
ivec3 own_mask;
#else
#define OWN_SUMS(head, i) vec2(0)
#define TILE_SUMS(own, t) tile_sums[t]
#define TILE_MASK(t) tile_mask[t]
shared vec2 tile_sums[TILE];
shared ivec3 tile_mask[TILE];
#endif

// Before the products with a part of the tile.
void take_rows(uint head, uint i, uint part)
{
#ifdef SHUFFLE
    [[unroll]] for (uint c = 0; c < CHUNK; c++) {
        query_take(c, query(head, query_row(i + lane, own_pick), part * CHUNK + c));
        dy_take(c, dy(head, output_row(i + lane, own_pick), part * CHUNK + c));
    }
#endif
}

// Segment and limits of query i.
ivec3 query_mask(uint i, ivec2 pick)
{
    int segment = query_segment(i, pick);
    return ivec3(segment, limits_of(query_place(i, pick), segment));
}

int segment[ROWS]; // of the lane's rows
ivec4 span; // of all rows: -(lowest segment), highest, -(first position of segment 0), -(of any)

// Sets the above for the lane's rows, the first of them at `first`.
void survey_rows(uint first)
{
    span = ivec4(-NEVER, -1, -NEVER, -NEVER);
    [[unroll]] for (uint r = 0; r < ROWS; r++) {
        uint j = first + r * LANES;
        segment[r] = key_segment(j);
        if (segment[r] >= 0)
            span = max(span, ivec4(-segment[r], segment[r], segment[r] == 0 ? -int(j) : -NEVER, -int(j)));
    }
    span = workgroup_max(span);
}

// Whether a query of that mask may see some row.
bool touches(ivec3 mask)
{
    return -span.z <= mask.y || (mask.x >= -span.x && mask.x <= span.y && -span.w <= mask.z);
}

// The first tile of queries from i on with one that may see some row, or one beyond the end.
uint seek(uint i)
{
    bool found;
    do {
#ifdef SHUFFLE
        own_pick = pick_of(i + lane);
        own_mask = query_mask(i + lane, own_pick);
        found = workgroup_any(touches(own_mask));
#else
        bool mine = false;
        for (uint t = lane; t < TILE; t += LANES)
            mine = mine || touches(query_mask(i + t, pick_of(i + t)));
        found = workgroup_any(mine);
#endif
        i += TILE;
    } while (!found && i < push.queries);
    return found ? i - TILE : i;
}

// Makes the tile of queries from i on, found by seek(), readable.
void open_tile(uint head, uint i)
{
#ifndef SHUFFLE
    barrier(); // all have finished with the last tile
    for (uint n = lane; n < TILE * WIDTH; n += LANES) {
        uint t = i + n / WIDTH;
        ivec2 pick = pick_of(t);
        tile_query[n] = query(head, query_row(t, pick), n % WIDTH);
        tile_dy[n] = dy(head, output_row(t, pick), n % WIDTH);
    }
    for (uint t = lane; t < TILE; t += LANES) {
        tile_sums[t] = row_sums(head, i + t);
        tile_mask[t] = query_mask(i + t, pick_of(i + t));
    }
    barrier();
#endif
}

vec4 k[ROWS][CHUNK], v[ROWS][CHUNK], dk[ROWS][CHUNK], dv[ROWS][CHUNK];

void load_rows(uint first, uint part)
{
    [[unroll]] for (uint r = 0; r < ROWS; r++)
        [[unroll]] for (uint c = 0; c < CHUNK; c++) {
            k[r][c] = key(first + r * LANES, part * CHUNK + c) * (push.scale * LOG2E);
            v[r][c] = value(first + r * LANES, part * CHUNK + c);
        }
}

// Adds what queries u .. u + BLOCK - 1 of the tile contribute.
void attend(uint head, uint first, uint i, uint u)
{
    float s[ROWS][BLOCK], dp[ROWS][BLOCK];
    vec2 own_sums = OWN_SUMS(head, i);
    [[unroll]] for (uint t = 0; t < BLOCK; t++) {
        vec2 sums = TILE_SUMS(own_sums, u + t);
        [[unroll]] for (uint r = 0; r < ROWS; r++) {
            s[r][t] = -sums.x;
            dp[r][t] = -sums.y;
        }
    }
    uint part = 0;
    do {
        if (CHUNKS > 1)
            load_rows(first, part);
        take_rows(head, i, part);
        query_scores(s, k, u, part);
        dy_scores(dp, v, u, part);
    } while (++part < CHUNKS);
    [[unroll]] for (uint t = 0; t < BLOCK; t++) {
        ivec3 mask = TILE_MASK(u + t);
        [[unroll]] for (uint r = 0; r < ROWS; r++) {
            bool visible = int(first + r * LANES) <= limit_of(segment[r], mask.x, mask.yz);
            s[r][t] = visible ? exp2(s[r][t]) : 0;
            dp[r][t] *= s[r][t];
        }
    }
    if (CHUNKS > 1)
        take_rows(head, i, chunk);
    dy_sums(dv, s, u, chunk);
    query_sums(dk, dp, u, chunk);
}

void main()
{
    lane = gl_LocalInvocationID.x;
    batch = gl_WorkGroupID.z;
    key_head = gl_WorkGroupID.y / CHUNKS;
    chunk = gl_WorkGroupID.y % CHUNKS;
    uint first = gl_WorkGroupID.x * LANES * ROWS + lane; // the lane's first row; the next ones follow LANES apart

    survey_rows(first);
    [[unroll]] for (uint r = 0; r < ROWS; r++)
        [[unroll]] for (uint c = 0; c < CHUNK; c++)
            dk[r][c] = dv[r][c] = vec4(0);
    load_rows(first, chunk);
    uint i = seek(0);
    do {
        uint head = key_head * push.group, head_end = head + push.group;
        do {
            open_tile(head, i);
            uint u = 0;
            do {
                attend(head, first, i, u);
                u += BLOCK;
            } while (u < TILE);
        } while (++head < head_end);
        i = seek(i + TILE);
    } while (i < push.queries);
    uint at = key_head * WIDTH + chunk * CHUNK, end = at + CHUNK;
    do {
        [[unroll]] for (uint r = 0; r < ROWS; r++) {
            uint j = first + r * LANES;
            if (j < push.keys) {
                store_gradient(row_of(j) * push.k_row + push.k_first + at, push.scale * dk[r][0]);
                store_gradient(row_of(j) * push.v_row + push.v_first + at, dv[r][0]);
            }
            NEXT_VECTOR(dk[r]);
            NEXT_VECTOR(dv[r]);
        }
    } while (++at < end);
}
