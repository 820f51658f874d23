#version 450
// Matrix product for GPUs, and for any shape, type and alignment: BM x BN tiles of C, RM x RN of them in each
// invocation's registers; slices of A and B, BK terms deep, pass through shared memory as f32, turned so that terms are
// outermost, one being filled while the other is multiplied.
#extension GL_EXT_control_flow_attributes : require
#extension GL_GOOGLE_include_directive : require

layout(local_size_x = 64, local_size_x_id = 0) in; // (BM / RM) (BN / RN)
layout(constant_id = 1) const uint LAYOUT = 0;
layout(constant_id = 2) const uint BM = 64;
layout(constant_id = 3) const uint BN = 64;
layout(constant_id = 4) const uint BK = 16;
layout(constant_id = 5) const uint RM = 8; // RM and RN multiples of 4; BM / RM one of 4, BN / RN of 8
layout(constant_id = 6) const uint RN = 8;
layout(constant_id = 7) const bool ALIGNED = false;

const uint HEIGHT = BM;
const uint WIDTH = BN;
#include "gemm.glsl"
#include "gemm_slices.glsl"

const uint A_PITCH = BM / 4 + 1, B_PITCH = BN / 4 + 1; // one more spreads the turned slices over the memory banks
const uint A_SLICE = BK * A_PITCH, B_SLICE = BK * B_PITCH;
const uint COLUMNS = BN / RN; // invocations side by side
const uint ROWS = BM / RM;

shared vec4 a_slices[2 * A_SLICE];
shared vec4 b_slices[2 * B_SLICE];

vec4 sum[RM * RN / 4];

vec4 unpack_chunk(uint type, uvec4 chunk, uint part)
{
    return type == TYPE_F32 ? uintBitsToFloat(chunk) : unpack_halves(type, part == 0 ? chunk.xy : chunk.zw);
}

// Stores a chunk of a line: four elements side by side, or one below the other.
#define PUT_CHUNK(NAME, TYPE, EACH, SLICE, PITCH, ALONG_TERMS) \
    void put_##NAME(uint side, uvec4 chunk, uint line, uint along) \
    { \
        [[unroll]] for (uint part = 0; part < EACH / 4; ++part) { \
            vec4 v = unpack_chunk(TYPE, chunk, part); \
            uint at = along + 4 * part; \
            if (ALONG_TERMS) { \
                [[unroll]] for (uint e = 0; e < 4; ++e) \
                    NAME##_slices[side * SLICE + (at + e) * PITCH + line / 4][line % 4] = v[e]; \
            } else { \
                NAME##_slices[side * SLICE + line * PITCH + at / 4] = v; \
            } \
        } \
    }

PUT_CHUNK(a, A_TYPE, A_EACH, A_SLICE, A_PITCH, LAYOUT != TN)
PUT_CHUNK(b, B_TYPE, B_EACH, B_SLICE, B_PITCH, LAYOUT == NT)

void put(uint side)
{
    [[unroll]] for (uint i = 0; i < A_SHARE; ++i)
        if (a_line(i) < A_LINES)
            put_a(side, a_next[i], a_line(i), a_along(i));
    [[unroll]] for (uint i = 0; i < B_SHARE; ++i)
        if (b_line(i) < B_LINES)
            put_b(side, b_next[i], b_line(i), b_along(i));
}

// Each invocation has RM/4 runs of four rows and RN/4 of four columns, so that neighbours read neighbouring banks. 32
// invocations are 4 by 8: of each two neighbours one reads A for both, of each two pairs one reads B.
uint row_quad(uint i)
{
    uint at = gl_LocalInvocationIndex, block = at / 32 / (COLUMNS / 8);
    return i * ROWS + block * 4 + at / 16 % 2 * 2 + at % 2;
}

uint column_quad(uint j)
{
    uint at = gl_LocalInvocationIndex, block = at / 32 % (COLUMNS / 8);
    return j * COLUMNS + block * 8 + at / 2 % 8;
}

void multiply_slices(uint side)
{
    [[dont_unroll]] for (uint t = 0; t < BK; ++t) {
        vec4 av[RM / 4], bv[RN / 4];
        [[unroll]] for (uint i = 0; i < RM / 4; ++i)
            av[i] = a_slices[side * A_SLICE + t * A_PITCH + row_quad(i)];
        [[unroll]] for (uint j = 0; j < RN / 4; ++j)
            bv[j] = b_slices[side * B_SLICE + t * B_PITCH + column_quad(j)];
        [[unroll]] for (uint i = 0; i < RM; ++i)
            [[unroll]] for (uint j = 0; j < RN / 4; ++j)
                sum[i * (RN / 4) + j] += av[i / 4][i % 4] * bv[j];
    }
}

// A rolled loop that moves the sums down by one quad per turn: unrolled, it is most of the kernel's code.
void store(Tile tile)
{
    [[dont_unroll]] for (uint p = 0; p < RM * RN / 4; ++p) {
        uint i = p / (RN / 4), j = p % (RN / 4);
        uint row = tile.row + row_quad(i / 4) * 4 + i % 4, column = tile.column + column_quad(j) * 4;
        if (row < tile.row_end && column < n)
            finish(tile.entry, row, column, sum[0], min(n - column, 4));
        [[unroll]] for (uint q = 1; q < RM * RN / 4; ++q)
            sum[q - 1] = sum[q];
    }
}

void make_tile(Tile tile)
{
    [[unroll]] for (uint p = 0; p < RM * RN / 4; ++p)
        sum[p] = vec4(0);
    for (uint s = 0; s < segments; ++s) {
        uint entry = tile.entry * segments + s;
        sum_slices(tile, entry * a_stride, entry * b_stride);
    }
    store(tile);
}

void main()
{
    make_tiles();
}
