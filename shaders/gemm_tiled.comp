#version 450
// Matrix product for GPUs, and for any shape and alignment: BM x BN tiles of C, RM x RN of them in each invocation's
// registers; slices of A and B, BK terms deep, pass through shared memory, turned so that terms are outermost.
#extension GL_EXT_control_flow_attributes : require
#extension GL_GOOGLE_include_directive : require

layout(local_size_x = 64, local_size_x_id = 0) in; // (BM / RM) (BN / RN)
layout(constant_id = 1) const uint LAYOUT = 0;
layout(constant_id = 2) const uint BM = 64;
layout(constant_id = 3) const uint BN = 64;
layout(constant_id = 4) const uint RM = 8; // RM and RN multiples of 4
layout(constant_id = 5) const uint RN = 8;

layout(std430, binding = 0) readonly buffer A { uint a[]; };
layout(std430, binding = 1) readonly buffer B { uint b[]; };

const uint HEIGHT = BM;
const uint WIDTH = BN;
#include "gemm.glsl"

const uint BK = 16;
const uint PAD = 4; // spreads the turned slices over the memory banks
const uint COLUMNS = BN / RN; // invocations side by side
const uint ROWS = BM / RM;

shared float a_slice[BK * (BM + PAD)];
shared float b_slice[BK * (BN + PAD)];

float sum[RM][RN];

// Each invocation has RM/4 runs of four rows and RN/4 of four columns, so that neighbours read neighbouring banks.
uint tile_row(uint i)
{
    return i / 4 * (4 * ROWS) + gl_LocalInvocationIndex / COLUMNS * 4 + i % 4;
}

uint tile_column(uint j)
{
    return j / 4 * (4 * COLUMNS) + gl_LocalInvocationIndex % COLUMNS * 4 + j % 4;
}

float a_at(uint i)
{
    return A_TYPE == TYPE_F32 ? uintBitsToFloat(a[i]) : unpack_half_pair(A_TYPE, a[i / 2])[i % 2];
}

float b_at(uint i)
{
    return B_TYPE == TYPE_F32 ? uintBitsToFloat(b[i]) : unpack_half_pair(B_TYPE, b[i / 2])[i % 2];
}

void load_a(Tile tile, uint base, uint from)
{
    for (uint i = gl_LocalInvocationIndex; i < BM * BK; i += gl_WorkGroupSize.x) {
        uint slice = LAYOUT == TN ? i / BM : i % BK, row = LAYOUT == TN ? i % BM : i / BK;
        uint at_term = from + slice, at_row = tile.row + row;
        float x = 0;
        if (at_term < tile.k_end && at_row < tile.row_end)
            x = a_at(base + (LAYOUT == TN ? at_term * m + at_row : gathered_row(at_row) * k + at_term));
        a_slice[slice * (BM + PAD) + row] = x;
    }
}

void load_b(Tile tile, uint base, uint from)
{
    for (uint i = gl_LocalInvocationIndex; i < BN * BK; i += gl_WorkGroupSize.x) {
        uint slice = LAYOUT == NT ? i % BK : i / BN, column = LAYOUT == NT ? i / BK : i % BN;
        uint at_term = from + slice, at_column = tile.column + column;
        float x = 0;
        if (at_term < tile.k_end && at_column < n)
            x = b_at(base + (LAYOUT == NT ? at_column * k + at_term :
                                 (LAYOUT == TN ? gathered_row(at_term) : at_term) * n + at_column));
        b_slice[slice * (BN + PAD) + column] = x;
    }
}

void multiply_slices()
{
    [[dont_unroll]] for (uint t = 0; t < BK; ++t) {
        float av[RM], bv[RN];
        [[unroll]] for (uint i = 0; i < RM; ++i)
            av[i] = a_slice[t * (BM + PAD) + tile_row(i)];
        [[unroll]] for (uint j = 0; j < RN; ++j)
            bv[j] = b_slice[t * (BN + PAD) + tile_column(j)];
        [[unroll]] for (uint i = 0; i < RM; ++i)
            [[unroll]] for (uint j = 0; j < RN; ++j)
                sum[i][j] += av[i] * bv[j];
    }
}

void multiply(Tile tile, uint a_base, uint b_base)
{
    for (uint from = tile.k; from < tile.k_end; from += BK) {
        load_a(tile, a_base, from);
        load_b(tile, b_base, from);
        barrier();
        multiply_slices();
        barrier();
    }
}

void store(Tile tile)
{
    [[unroll]] for (uint i = 0; i < RM; ++i) {
        uint row = tile.row + tile_row(i);
        if (row >= tile.row_end)
            continue;
        [[unroll]] for (uint j = 0; j < RN; j += 4) {
            uint column = tile.column + tile_column(j);
            if (column < n)
                finish(tile.entry, row, column, vec4(sum[i][j], sum[i][j + 1], sum[i][j + 2], sum[i][j + 3]),
                       min(n - column, 4));
        }
    }
}

void make_tile(Tile tile)
{
    [[unroll]] for (uint i = 0; i < RM; ++i)
        [[unroll]] for (uint j = 0; j < RN; ++j)
            sum[i][j] = 0;
    for (uint s = 0; s < segments; ++s) {
        uint entry = tile.entry * segments + s;
        multiply(tile, entry * a_stride, entry * b_stride);
    }
    store(tile);
}

void main()
{
    make_tiles();
}
