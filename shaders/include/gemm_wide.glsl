// Outputs on CPU drivers, eight neighbouring columns at once: there a store costs per component, whatever its size, so
// that 64-bit words are best, and a texel buffer read a quarter of a storage buffer read.
#include "gemm_texel.glsl"

layout(binding = 6) uniform usamplerBuffer other_texels;
layout(binding = 8) uniform usamplerBuffer c_texels;

// load_NAME(at, count) as without WIDE, and load_eight_NAME(at): elements at..at+7, `at` a multiple of 8.
#define GEMM_LOAD_TEXELS(NAME, TYPE) \
    TEXEL_FETCH_ANY(load_any_##NAME, NAME##_texels, TYPE) \
    vec4 load_##NAME(uint at, uint count) \
    { \
        if (!VECTOR) \
            return load_any_##NAME(at); \
        return texel_part(TYPE, texelFetch(NAME##_texels, int(at / texel_values(TYPE))), at % 8 == 4); \
    } \
    mat2x4 load_eight_##NAME(uint at) \
    { \
        uvec4 first = texelFetch(NAME##_texels, int(at / texel_values(TYPE))); \
        uvec4 second = TYPE == TYPE_F32 ? texelFetch(NAME##_texels, int(at / 4 + 1)) : first; \
        return mat2x4(texel_part(TYPE, first, false), texel_part(TYPE, second, true)); \
    }

u64vec2 pack_words(uvec4 v)
{
    return u64vec2(packUint2x32(v.xy), packUint2x32(v.zw));
}

// store_eight_NAME(at, values), likewise.
#define GEMM_STORE_EIGHT(slot, NAME, TYPE) \
    layout(std430, binding = slot) buffer NAME##_eights { u64vec4 NAME##_eight[]; }; \
    layout(std430, binding = slot) buffer NAME##_halves { u64vec2 NAME##_half[]; }; \
    void store_eight_##NAME(uint at, mat2x4 v) \
    { \
        if (TYPE == TYPE_F32) \
            NAME##_eight[at / 8] = u64vec4(pack_words(floatBitsToUint(v[0])), pack_words(floatBitsToUint(v[1]))); \
        else \
            NAME##_half[at / 8] = pack_words(uvec4(pack_halves(TYPE, v[0]), pack_halves(TYPE, v[1]))); \
    }

GEMM_LOAD_TEXELS(c, C_TYPE)
GEMM_STORE_EIGHT(2, c, C_TYPE)
GEMM_LOAD_TEXELS(other, OTHER_TYPE)
GEMM_STORE_EIGHT(7, extra, EXTRA_TYPE)
layout(std430, binding = 7) buffer extra_pairs_of_floats { uint64_t extra_pair[]; };
