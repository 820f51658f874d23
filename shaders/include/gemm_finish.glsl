// What every matrix product kernel does with a finished sum v (bias added), and the constants that it needs. Mirrored
// in nn/gemm_variants.c.
//   NONE      C = v
//   ACTIVATE  C = act(v)            extra = v, where wanted
//   GATE      C = act(other) v      extra = v, where wanted
//   SLOPE     C = v act'(other)
//   ADD       C = v + other
//   AFFINITY  C = v                 extra = the sum of an affinity's terms over each four columns; needs VECTOR
#include "activation.glsl"
#include "half.glsl"

layout(constant_id = 9) const uint TYPES = 0;      // enum nn_dtype of A, B, C, other, extra, four bits each
layout(constant_id = 10) const uint OUTPUT = 0;    // enum nn_gemm_epilogue, and from bit 4 on the flags below
layout(constant_id = 11) const uint ACTIVATION = 0; // AFFINITY: enum nn_affinity_kind
layout(constant_id = 12) const bool GATHER = false;
layout(constant_id = 13) const bool VECTOR = false; // N and all strides of outputs are multiples of 4

const uint A_TYPE = TYPES & 15u, B_TYPE = TYPES >> 4 & 15u;
const uint C_TYPE = TYPES >> 8 & 15u, OTHER_TYPE = TYPES >> 12 & 15u, EXTRA_TYPE = TYPES >> 16 & 15u;
const uint NONE = 0, ACTIVATE = 1, GATE = 2, SLOPE = 3, ADD = 4, AFFINITY = 5;
const uint EPILOGUE = OUTPUT & 15u;
const bool ADD_BIAS = (OUTPUT & 16u) != 0u, ACCUMULATE = (OUTPUT & 32u) != 0u, STORE_EXTRA = (OUTPUT & 64u) != 0u;

const uint KIND = ACTIVATION;
#include "affinity.glsl"

#define FOUR_COLUMN(v, c) v[c]
DEFINE_AFFINITY_SUM(vec4, 4u, FOUR_COLUMN)

layout(push_constant) uniform Push
{
    uint m, n, k;
    uint a_stride, b_stride, c_stride, bias_stride; // elements from one batch entry or group to the next
    uint groups;                  // 0 where not grouped
    uint segments;                // consecutive batch entries summed into one C
    uint column_tiles, row_tiles; // made by one workgroup, one after the other: one of its own costs a CPU 1 us.
                                  // row_tiles 0: an equal share of all groups' rows of tiles
    uint term, terms;             // sum over this window of the terms only; see nn/gemm.c
    uint nothing;                 // 0, unknown to the compiler: with it what is only touched is used
    uint group_step;              // TN: from one group to the next one in the grid, modulo their number
    uint first_group;             // or batch entry: of `offsets` and the biases; B and C begin with its own
};

#define GEMM_BUFFER(slot, ACCESS, NAME) \
    layout(std430, binding = slot) ACCESS buffer NAME##_words { uint NAME##1[]; }; \
    layout(std430, binding = slot) ACCESS buffer NAME##_pairs { uvec2 NAME##2[]; }; \
    layout(std430, binding = slot) ACCESS buffer NAME##_quads { uvec4 NAME##4[]; };

// load_NAME(at, count): `count` (1 to 4) neighbouring elements from element `at`; the rest is anything. Four at a
// multiple of 4 where VECTOR; an even count at an even element where the type has 16 bits.
#define GEMM_LOAD(NAME, TYPE) \
    vec4 load_##NAME(uint at, uint count) \
    { \
        if (VECTOR) { \
            if (TYPE == TYPE_F32) \
                return uintBitsToFloat(NAME##4[at / 4]); \
            return unpack_halves(TYPE, NAME##2[at / 4]); \
        } \
        vec4 v = vec4(0); \
        if (TYPE == TYPE_F32) { \
            for (uint i = 0; i < count; ++i) \
                v[i] = uintBitsToFloat(NAME##1[at + i]); \
            return v; \
        } \
        v.xy = unpack_half_pair(TYPE, NAME##1[at / 2]); \
        if (count > 2) \
            v.zw = unpack_half_pair(TYPE, NAME##1[at / 2 + 1]); \
        return v; \
    }

// store_NAME(at, values, count), likewise.
#define GEMM_STORE(NAME, TYPE) \
    void store_##NAME(uint at, vec4 v, uint count) \
    { \
        if (VECTOR) { \
            if (TYPE == TYPE_F32) \
                NAME##4[at / 4] = floatBitsToUint(v); \
            else \
                NAME##2[at / 4] = pack_halves(TYPE, v); \
        } else if (TYPE == TYPE_F32) { \
            for (uint i = 0; i < count; ++i) \
                NAME##1[at + i] = floatBitsToUint(v[i]); \
        } else { \
            NAME##1[at / 2] = pack_half_pair(TYPE, v.xy); \
            if (count > 2) \
                NAME##1[at / 2 + 1] = pack_half_pair(TYPE, v.zw); \
        } \
    }

GEMM_BUFFER(2, , c)
GEMM_STORE(c, C_TYPE)
GEMM_BUFFER(3, readonly, bias)
GEMM_LOAD(bias, TYPE_F32)
GEMM_BUFFER(7, , extra)
GEMM_STORE(extra, EXTRA_TYPE)
#ifdef WIDE
#include "gemm_wide.glsl"
#else
GEMM_LOAD(c, C_TYPE)
GEMM_BUFFER(6, readonly, other)
GEMM_LOAD(other, OTHER_TYPE)
#endif

float apply_epilogue(float v, float other)
{
    if (EPILOGUE == ACTIVATE || EPILOGUE == GATE) {
        float a = activation(ACTIVATION, EPILOGUE == GATE ? other : v);
        return EPILOGUE == GATE ? a * v : a;
    }
    if (EPILOGUE == SLOPE)
        return v * activation_derivative(ACTIVATION, other);
    return EPILOGUE == ADD ? v + other : v;
}

// The loops over what an epilogue is applied to are no [[unroll]] ones: glslc would unroll them with all epilogues and
// activations, of which a driver, that knows the constants, then had to take all but one out again.
vec4 apply_epilogue(vec4 v, vec4 other)
{
    for (uint c = 0; c < 4; ++c)
        v[c] = apply_epilogue(v[c], other[c]);
    return v;
}

const bool HAS_OTHER = EPILOGUE == GATE || EPILOGUE == SLOPE || EPILOGUE == ADD;

// Stores the sums, bias added, of `count` (1 to 4) columns of a row; `column` is a multiple of 4.
void complete(uint entry, uint row, uint column, vec4 v, uint count)
{
    uint at = entry * c_stride + row * n + column;
    if (EPILOGUE == AFFINITY)
        extra1[at / 4] = floatBitsToUint(affinity_sum(v));
    else if (STORE_EXTRA)
        store_extra(at, v, count);
    v = apply_epilogue(v, HAS_OTHER ? load_other(at, count) : vec4(0));
    if (ACCUMULATE)
        v += load_c(at, count);
    store_c(at, v, count);
}

// The same without the bias, which is added here.
void finish(uint entry, uint row, uint column, vec4 v, uint count)
{
    if (ADD_BIAS)
        v += load_bias((first_group + entry) * bias_stride + column, count);
    complete(entry, row, column, v, count);
}

// complete() of eight columns; N and all strides of outputs are multiples of 8.
void complete_eight(uint entry, uint row, uint column, vec4 low, vec4 high)
{
#ifdef WIDE
    uint at = entry * c_stride + row * n + column;
    if (EPILOGUE == AFFINITY)
        extra_pair[at / 8] = packUint2x32(floatBitsToUint(vec2(affinity_sum(low), affinity_sum(high))));
    else if (STORE_EXTRA)
        store_eight_extra(at, mat2x4(low, high));
    mat2x4 other = HAS_OTHER ? load_eight_other(at) : mat2x4(0);
    mat2x4 v = mat2x4(low, high);
    for (uint i = 0; i < 2; ++i)
        v[i] = apply_epilogue(v[i], other[i]);
    if (ACCUMULATE)
        v += load_eight_c(at);
    store_eight_c(at, v);
#endif
}
