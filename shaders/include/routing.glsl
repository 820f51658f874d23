// What the routing kernels share: TILE_ROWS rows of EXPERTS numbers in shared memory (defined before the include), one
// invocation per token of a tile of TOKENS tokens, and each tile's partial sums for routing_finish.comp.
//
// Record of a tile, in floats: first choices [E], sums of the balance probability [E], all choices [E], then the sums
// over tokens of: lse^2, entropy, (p - q)^2 over all experts, (p - q)^2 over the winners.
#ifndef ROUTING_GLSL
#define ROUTING_GLSL

#include "math.glsl"

layout(local_size_x = 64) in;
layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint EXPERTS = 4;
layout(constant_id = 2) const uint TOP_K = 2;
layout(constant_id = 3) const uint TOKENS = 64; // of a tile; at most the workgroup

layout(push_constant) uniform Push
{
    uint per_sequence; // tokens of a sequence
    uint tiles;        // of a sequence
};

// The odd stride spreads a column over the memory banks.
const uint STRIDE = EXPERTS | 1u;
const uint RECORD = 3u * EXPERTS + 4u;

shared float tile[TILE_ROWS * STRIDE];
shared uint chosen[TOKENS * TOP_K];
shared vec4 token_sums[TOKENS];

struct Place {
    uint first, count, record; // first token of the tile, tokens in it, place of its record
};

// Workgroup x is a tile of sequence y.
Place place_of_group()
{
    uint start = gl_WorkGroupID.x * TOKENS;
    return Place(gl_WorkGroupID.y * per_sequence + start, min(TOKENS, per_sequence - start),
                 (gl_WorkGroupID.y * tiles + gl_WorkGroupID.x) * RECORD);
}

// Where element i of the tile's tokens lies in tile[].
uint tile_place(uint i)
{
    return i / EXPERTS * STRIDE + i % EXPERTS;
}

// Softmax in place of the row at `row`; returns the logarithm of its sum of exponentials.
float softmax_row(uint row)
{
    float top = tile[row];
    for (uint e = 1u; e < EXPERTS; e++)
        top = max(top, tile[row + e]);
    float sum = 0.0;
    for (uint e = 0u; e < EXPERTS; e++) {
        float x = accurate_exp(tile[row + e] - top);
        tile[row + e] = x;
        sum += x;
    }
    for (uint e = 0u; e < EXPERTS; e++)
        tile[row + e] /= sum;
    return top + accurate_log(sum);
}

// Entropy in nats of the probabilities at `row`; one below the least normal number counts as zero.
float entropy_of_row(uint row)
{
    float sum = 0.0;
    for (uint e = 0u; e < EXPERTS; e++) {
        float p = tile[row + e];
        sum -= p * accurate_log(max(p, 1.2e-38));
    }
    return sum;
}

// The TOP_K largest of the row in descending order, lowest index first among equals, into chosen[]. A row of NaNs gives
// valid indices too.
void select_row(uint row, uint token)
{
    float last = 0.0;
    uint last_index = 0u;
    for (uint k = 0u; k < TOP_K; k++) {
        float best = 0.0;
        uint best_index = k;
        bool found = false;
        for (uint e = 0u; e < EXPERTS; e++) {
            float x = tile[row + e];
            bool open = k == 0u || x < last || (x == last && e > last_index);
            if (open && (!found || x > best)) {
                best = x;
                best_index = e;
                found = true;
            }
        }
        chosen[token * TOP_K + k] = best_index;
        last = best;
        last_index = best_index;
    }
}

#endif
