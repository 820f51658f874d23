#version 450
// Matrix product for CPU drivers: one workgroup is one subgroup and keeps a tile of RM x 4 SG elements of C in
// registers, without shared memory. On these drivers loads are what costs, and a texel fetch of 16 bytes is the
// cheapest there is: each lane fetches what it needs of B's four columns of its own; A's RM rows are spread over the
// lanes and handed round by shuffles from constant lanes. All rows must be 16-byte aligned: N, and K (NT, NN) or M
// (TN), multiples of 4.
#extension GL_EXT_control_flow_attributes : require
#extension GL_GOOGLE_include_directive : require
#extension GL_KHR_shader_subgroup_shuffle : require

layout(local_size_x = 8, local_size_x_id = 0) in;
layout(constant_id = 0) const uint SG = 8; // the subgroup size
layout(constant_id = 1) const uint LAYOUT = 0;
layout(constant_id = 2) const uint RM = 8; // a multiple of 4
layout(constant_id = 3) const uint STEPS = 4; // of four terms in a turn of the loop

layout(binding = 0) uniform usamplerBuffer a;
layout(binding = 1) uniform usamplerBuffer b;

const uint HEIGHT = RM;
const uint WIDTH = 4 * SG;
#include "gemm.glsl"

const uint FETCHES = (RM + SG - 1) / SG; // of A per lane and step of four terms

vec4 sum[RM];

// Four elements from element 4 i.
vec4 fetch_a(uint i)
{
    if (A_TYPE == TYPE_F32)
        return uintBitsToFloat(texelFetch(a, int(i)));
    uvec4 texel = texelFetch(a, int(i / 2));
    return unpack_halves(A_TYPE, i % 2 == 0 ? texel.xy : texel.zw);
}

vec4 fetch_b(uint i)
{
    if (B_TYPE == TYPE_F32)
        return uintBitsToFloat(texelFetch(b, int(i)));
    uvec4 texel = texelFetch(b, int(i / 2));
    return unpack_halves(B_TYPE, i % 2 == 0 ? texel.xy : texel.zw);
}

// Bases in fours of elements. Rows and columns beyond the edge repeat the last one, terms beyond the end count as 0. A turn
// fetches whole cache lines of the rows that lie along the terms, because a row length that is a power of two maps the
// lines of all rows to the same few places of a CPU's cache, where they do not survive until the next turn.
void multiply(Tile tile, uint column, uint a_base, uint b_base)
{
    uint a_at[FETCHES], a_term[FETCHES], b_at[4];
    [[unroll]] for (uint f = 0; f < FETCHES; ++f) {
        uint part = (f * SG + gl_SubgroupInvocationID) % RM; // NT, NN: a row of the tile; TN: a term and four rows
        a_term[f] = part / (RM / 4);
        if (LAYOUT == TN)
            a_at[f] = a_base + min(tile.row / 4 + part % (RM / 4), m / 4 - 1);
        else
            a_at[f] = a_base + gathered_row(min(tile.row + part, tile.row_end - 1)) * (k / 4);
    }
    [[unroll]] for (uint j = 0; j < 4; ++j)
        b_at[j] = b_base + (LAYOUT == NT ? min(column + j, n - 1) * (k / 4) : min(column, n - 4) / 4);

    uint last = tile.k_end - 1;
    for (uint i = tile.k; i < tile.k_end; i += 4 * STEPS) {
        vec4 av[STEPS][FETCHES], bv[STEPS][4];
        [[unroll]] for (uint f = 0; f < FETCHES; ++f) {
            [[unroll]] for (uint s = 0; s < STEPS; ++s) {
                uint at = i + 4 * s + (LAYOUT == TN ? a_term[f] : 0);
                av[s][f] = fetch_a(a_at[f] + (LAYOUT == TN ? min(at, last) * (m / 4) : min(at, last) / 4));
                if (LAYOUT == TN || s > 0)
                    av[s][f] = at <= last ? av[s][f] : vec4(0);
            }
        }
        if (LAYOUT == NT) {
            [[unroll]] for (uint j = 0; j < 4; ++j)
                [[unroll]] for (uint s = 0; s < STEPS; ++s)
                    bv[s][j] = fetch_b(b_at[j] + min(i + 4 * s, last) / 4);
        }
        [[unroll]] for (uint s = 0; s < STEPS; ++s) {
            if (LAYOUT == NT) { // from four terms of one column to four columns of one term
                mat4 turned = transpose(mat4(bv[s][0], bv[s][1], bv[s][2], bv[s][3]));
                [[unroll]] for (uint j = 0; j < 4; ++j)
                    bv[s][j] = turned[j];
            } else {
                [[unroll]] for (uint j = 0; j < 4; ++j) {
                    uint at = min(i + 4 * s + j, last);
                    bv[s][j] = fetch_b(b_at[j] + (LAYOUT == TN ? gathered_row(at) : at) * (n / 4));
                }
            }
            [[unroll]] for (uint j = 0; j < 4; ++j) {
                [[unroll]] for (uint r = 0; r < RM; ++r) {
                    uint part = LAYOUT == TN ? j * (RM / 4) + r / 4 : r;
                    uint component = LAYOUT == TN ? r % 4 : j;
                    sum[r] += subgroupShuffle(av[s][part / SG][component], part % SG) * bv[s][j];
                }
            }
        }
    }
}

// A rolled loop that moves the sums down by one row per turn: a quarter of the code of an unrolled one, which a CPU
// driver takes longer to compile than the whole product.
void store(Tile tile, uint column)
{
    uint rows = min(tile.row_end - tile.row, RM);
    [[dont_unroll]] for (uint r = 0; r < rows; ++r) {
        finish(tile.entry, tile.row + r, column, sum[0], 4);
        [[unroll]] for (uint i = 1; i < RM; ++i)
            sum[i - 1] = sum[i];
    }
}

void make_tile(Tile tile)
{
    uint column = tile.column + 4 * gl_SubgroupInvocationID;
    [[unroll]] for (uint r = 0; r < RM; ++r)
        sum[r] = vec4(0);
    for (uint s = 0; s < segments; ++s) {
        uint entry = tile.entry * segments + s;
        multiply(tile, column, entry * a_stride / 4, entry * b_stride / 4);
    }
    if (column < n)
        store(tile, column);
}

void main()
{
    make_tiles();
}
