#version 460
// Matrix product by cooperative matrices of a whole workgroup (VK_NV_cooperative_matrix2), f32 sums of f16 (with
// -DBFLOAT16: bf16) products. Tensor layouts say where an operand lies and where it ends, beyond which it is zero; how
// its slices, BK terms deep, get from memory into a product is the driver's matter. An operand that is gathered by
// rows, or stored as f32, is fetched element by element through a decode function.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_GOOGLE_include_directive : require
#extension GL_KHR_cooperative_matrix : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_NV_cooperative_matrix2 : require
#include "element.glsl"

layout(local_size_x = 256, local_size_x_id = 0) in; // as many as the driver wants for matrices of these sizes
layout(constant_id = 1) const uint LAYOUT = 0;
layout(constant_id = 2) const uint BM = 128;
layout(constant_id = 3) const uint BN = 128;
layout(constant_id = 4) const uint BK = 64;
layout(constant_id = 5) const int CLAMP = gl_CooperativeMatrixClampModeConstantNV; // ...UndefinedNV: whole tiles only
layout(constant_id = 6) const uint BAND = 16; // rows of sums on their way out at once; divides BM
layout(constant_id = 15) const bool ALIGNED = false; // lines of A and B are multiples of 16 bytes

const uint HEIGHT = BM;
const uint WIDTH = BN;
#include "gemm.glsl"

layout(std430, binding = 0) readonly buffer A_words { uint a1[]; };
layout(std430, binding = 0) readonly buffer A_chunks { uvec4 a4[]; };
layout(std430, binding = 1) readonly buffer B_words { uint b1[]; };
layout(std430, binding = 1) readonly buffer B_chunks { uvec4 b4[]; };

// The invocations hold the sums in an order of the driver's choice, and finish() wants neighbours.
shared float band[BAND * BN];

coopmat<float, gl_ScopeWorkgroup, BM, BN, gl_MatrixUseAccumulator> sums;

// ---- operands -------------------------------------------------------------------------------------------------------

// From one line (row of terms, or term) of an operand to the next; tells the compiler how it is aligned.
uint pitch(uint length)
{
    return ALIGNED ? length & ~7u : length;
}

const bool A_BY_TERM = LAYOUT == TN, B_BY_ROW = LAYOUT == NT;
const bool DECODE_A = LAYOUT != TN && GATHER ? true : A_TYPE != TYPE;
const bool DECODE_B = LAYOUT == TN && GATHER ? true : B_TYPE != TYPE;
uint a_start, b_start; // of the entry's operands, for the decode functions, which get no arguments of their own

// Element `at` as it is multiplied; the conversion of what was rounded before is exact.
#define LOAD_ELEMENT(NAME, STORED) \
    ELEMENT load_##NAME(uint at) \
    { \
        if (STORED != TYPE_F32) \
            return ELEMENT(unpack_half_pair(STORED, NAME##1[at / 2])[at % 2]); \
        uint rounded = pack_half_pair(TYPE, vec2(uintBitsToFloat(NAME##1[at]), 0)); \
        return ELEMENT(unpack_half_pair(TYPE, rounded).x); \
    }

LOAD_ELEMENT(a, A_TYPE)
LOAD_ELEMENT(b, B_TYPE)

// What a decode function gets by the extension's rules; here the coordinates in the layout say it all.
layout(buffer_reference, std430, buffer_reference_align = 4) readonly buffer Word
{
    uint word;
};

ELEMENT decode_a(const in Word place, const in uint at[2], const in uint in_block[2])
{
    return load_a(a_start + (A_BY_TERM ? at[0] * m : gathered_row(at[0]) * k) + at[1]);
}

ELEMENT decode_b(const in Word place, const in uint at[2], const in uint in_block[2])
{
    return load_b(b_start + (B_BY_ROW ? at[0] * k : (LAYOUT == TN ? gathered_row(at[0]) : at[0]) * n) + at[1]);
}

// A slice whose lines are the matrix's columns.
#define TURNED(SLICE) SLICE, createTensorViewNV(2, false, 1, 0)
#define LOAD(MATRIX, CHUNKS, START, SLICE, DECODED, DECODE) \
    if (DECODED) \
        coopMatLoadTensorNV(MATRIX, CHUNKS, 0, SLICE, DECODE); \
    else \
        coopMatLoadTensorNV(MATRIX, CHUNKS, START / 8, SLICE)

// ---- a tile ---------------------------------------------------------------------------------------------------------

void add_terms(Tile tile)
{
    tensorLayoutNV<2, CLAMP> a = createTensorLayoutNV(2, CLAMP);
    a = setTensorLayoutDimensionNV(a, A_BY_TERM ? tile.k_end : tile.row_end, A_BY_TERM ? m : tile.k_end);
    a = setTensorLayoutStrideNV(a, pitch(A_BY_TERM ? m : k), 1);
    tensorLayoutNV<2, CLAMP> b = createTensorLayoutNV(2, CLAMP);
    b = setTensorLayoutDimensionNV(b, B_BY_ROW ? n : tile.k_end, B_BY_ROW ? tile.k_end : n);
    b = setTensorLayoutStrideNV(b, pitch(B_BY_ROW ? k : n), 1);
    for (uint from = tile.k; from < tile.k_end; from += BK) {
        coopmat<ELEMENT, gl_ScopeWorkgroup, BM, BK, gl_MatrixUseA> av;
        coopmat<ELEMENT, gl_ScopeWorkgroup, BK, BN, gl_MatrixUseB> bv;
        if (A_BY_TERM) {
            LOAD(av, a4, a_start, TURNED(sliceTensorLayoutNV(a, from, BK, tile.row, BM)), DECODE_A, decode_a);
        } else {
            LOAD(av, a4, a_start, sliceTensorLayoutNV(a, tile.row, BM, from, BK), DECODE_A, decode_a);
        }
        if (B_BY_ROW) {
            LOAD(bv, b4, b_start, TURNED(sliceTensorLayoutNV(b, tile.column, BN, from, BK)), DECODE_B, decode_b);
        } else {
            LOAD(bv, b4, b_start, sliceTensorLayoutNV(b, from, BK, tile.column, BN), DECODE_B, decode_b);
        }
        sums = coopMatMulAdd(av, bv, sums);
    }
}

float put_in_band(const in uint row, const in uint column, const in float v, const in uint first)
{
    if (row - first < BAND)
        band[(row - first) * BN + column] = v;
    return v;
}

void store(Tile tile)
{
    for (uint first = 0; first < BM && tile.row + first < tile.row_end; first += BAND) {
        coopMatPerElementNV(sums, sums, put_in_band, first);
        barrier();
        for (uint i = gl_LocalInvocationIndex * 4; i < BAND * BN; i += gl_WorkGroupSize.x * 4) {
            uint row = tile.row + first + i / BN, column = tile.column + i % BN;
            if (row < tile.row_end && column < n)
                finish(tile.entry, row, column, vec4(band[i], band[i + 1], band[i + 2], band[i + 3]),
                       min(n - column, 4));
        }
        barrier();
    }
}

void make_tile(Tile tile)
{
    sums = coopmat<float, gl_ScopeWorkgroup, BM, BN, gl_MatrixUseAccumulator>(0.0);
    for (uint s = 0; s < segments; ++s) {
        uint entry = tile.entry * segments + s;
        a_start = entry * a_stride;
        b_start = entry * b_stride;
        add_terms(tile);
    }
    store(tile);
}

void main()
{
    make_tiles();
}
