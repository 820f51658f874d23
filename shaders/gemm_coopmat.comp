#version 450
// Matrix product by cooperative matrices, f32 sums of f16 (with -DBFLOAT16: bf16) products. Slices of A and B, BK terms
// deep, pass through shared memory as they lie in memory; each subgroup multiplies SM x SN of the
// tile of BM x BN in matrices of MM x MN x MK. An f32 operand is rounded on its way into shared memory.
#extension GL_EXT_control_flow_attributes : require
#extension GL_GOOGLE_include_directive : require
#extension GL_KHR_cooperative_matrix : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_KHR_shader_subgroup_basic : require
#include "element.glsl"

layout(local_size_x = 128, local_size_x_id = 0) in; // whole subgroups, one for each part of the tile
layout(constant_id = 1) const uint LAYOUT = 0;
layout(constant_id = 2) const uint BM = 64;
layout(constant_id = 3) const uint BN = 64;
layout(constant_id = 4) const uint BK = 32;
layout(constant_id = 5) const uint MM = 16;
layout(constant_id = 6) const uint MN = 16;
layout(constant_id = 7) const uint MK = 16;
layout(constant_id = 8) const uint SM = 32;
layout(constant_id = 14) const uint SN = 32;
layout(constant_id = 15) const bool ALIGNED = false;

const uint HEIGHT = BM;
const uint WIDTH = BN;
#include "gemm.glsl"
#include "gemm_slices.glsl"

// Lines lie in shared memory as in memory, in units of eight elements; one more spreads a column over the memory banks.
const uint A_PITCH = A_LENGTH * A_EACH / 8 + 1, B_PITCH = B_LENGTH * B_EACH / 8 + 1;
const uint A_SLICE = A_LINES * A_PITCH, B_SLICE = B_LINES * B_PITCH;
const uint PARTS = BM / SM * (BN / SN);

shared uvec4 a_slices[2 * A_SLICE];
shared uvec4 b_slices[2 * B_SLICE];
shared vec4 patches[PARTS * MM * MN / 4]; // one matrix of sums of each subgroup on its way out

coopmat<float, gl_ScopeSubgroup, MM, MN, gl_MatrixUseAccumulator> sums[SM / MM * (SN / MN)];

// Half a unit is written by its components: writing a swizzle would write the other half, too.
#define PUT_CHUNK(NAME, STORED, SLICE, PITCH) \
    void put_##NAME(uint side, uvec4 chunk, uint line, uint along) \
    { \
        uint at = side * SLICE + line * PITCH + along / 8; \
        if (STORED == TYPE) { \
            NAME##_slices[at] = chunk; \
        } else { \
            uvec2 rounded = pack_halves(TYPE, uintBitsToFloat(chunk)); \
            NAME##_slices[at][along / 4 % 2 * 2] = rounded.x; \
            NAME##_slices[at][along / 4 % 2 * 2 + 1] = rounded.y; \
        } \
    }

PUT_CHUNK(a, A_TYPE, A_SLICE, A_PITCH)
PUT_CHUNK(b, B_TYPE, B_SLICE, B_PITCH)

void put(uint side)
{
    [[unroll]] for (uint i = 0; i < A_SHARE; ++i)
        if (a_line(i) < A_LINES)
            put_a(side, a_next[i], a_line(i), a_along(i));
    [[unroll]] for (uint i = 0; i < B_SHARE; ++i)
        if (b_line(i) < B_LINES)
            put_b(side, b_next[i], b_line(i), b_along(i));
}

uint part_row()
{
    return gl_SubgroupID / (BN / SN) * SM;
}

uint part_column()
{
    return gl_SubgroupID % (BN / SN) * SN;
}

void multiply_slices(uint side)
{
    [[unroll]] for (uint t = 0; t < BK; t += MK) {
        coopmat<ELEMENT, gl_ScopeSubgroup, MM, MK, gl_MatrixUseA> av[SM / MM];
        [[unroll]] for (uint i = 0; i < SM / MM; ++i) {
            uint row = part_row() + i * MM;
            if (LAYOUT == TN)
                coopMatLoad(av[i], a_slices, side * A_SLICE + t * A_PITCH + row / 8, A_PITCH,
                            gl_CooperativeMatrixLayoutColumnMajor);
            else
                coopMatLoad(av[i], a_slices, side * A_SLICE + row * A_PITCH + t / 8, A_PITCH,
                            gl_CooperativeMatrixLayoutRowMajor);
        }
        [[unroll]] for (uint j = 0; j < SN / MN; ++j) {
            coopmat<ELEMENT, gl_ScopeSubgroup, MK, MN, gl_MatrixUseB> bv;
            uint column = part_column() + j * MN;
            if (LAYOUT == NT)
                coopMatLoad(bv, b_slices, side * B_SLICE + column * B_PITCH + t / 8, B_PITCH,
                            gl_CooperativeMatrixLayoutColumnMajor);
            else
                coopMatLoad(bv, b_slices, side * B_SLICE + t * B_PITCH + column / 8, B_PITCH,
                            gl_CooperativeMatrixLayoutRowMajor);
            [[unroll]] for (uint i = 0; i < SM / MM; ++i)
                sums[i * (SN / MN) + j] = coopMatMulAdd(av[i], bv, sums[i * (SN / MN) + j]);
        }
    }
}

// A rolled loop that moves the sums down by one matrix per turn: unrolled, it is most of the kernel's code.
void store(Tile tile)
{
    const uint COUNT = SM / MM * (SN / MN);
    uint patch_at = gl_SubgroupID * (MM * MN / 4);
    [[dont_unroll]] for (uint p = 0; p < COUNT; ++p) {
        coopMatStore(sums[0], patches, patch_at, MN / 4, gl_CooperativeMatrixLayoutRowMajor);
        subgroupBarrier();
        for (uint i = gl_SubgroupInvocationID; i < MM * MN / 4; i += gl_SubgroupSize) {
            uint row = tile.row + part_row() + p / (SN / MN) * MM + i / (MN / 4);
            uint column = tile.column + part_column() + p % (SN / MN) * MN + i % (MN / 4) * 4;
            if (row < tile.row_end && column < n)
                finish(tile.entry, row, column, patches[patch_at + i], min(n - column, 4));
        }
        subgroupBarrier();
        [[unroll]] for (uint q = 1; q < COUNT; ++q)
            sums[q - 1] = sums[q];
    }
}

void make_tile(Tile tile)
{
    [[unroll]] for (uint p = 0; p < SM / MM * (SN / MN); ++p)
        sums[p] = coopmat<float, gl_ScopeSubgroup, MM, MN, gl_MatrixUseAccumulator>(0.0);
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
