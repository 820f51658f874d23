// A unit: the columns of a row that an invocation loads, computes and stores at once.
//
// WIDTH  Unit    where
// 4      vec4    VECTOR: one 16-byte access
// 1      vec4    not VECTOR: .x; the rest is 0 when loaded and ignored when stored
// 8      mat2x4  built with -DWIDE, for CPU drivers: there a store costs per component, whatever its size, and a texel
//                buffer read a quarter of a storage buffer read. So: two texel reads, one store of four 64-bit
//                words. The columns of the matrix are the halves of the unit, nothing more.
//
// Values in memory are f32, f16 or bf16, by the slot's two bits of TYPES (enum nn_dtype); a unit is always f32. A unit
// of 8 is then one texel and one store of two 64-bit words; 16-bit values never come in units of 1, because rows of
// them are multiples of 8.
//
// Sums of units and products with a float are written with operators, products of units with mul().
#ifndef UNIT_GLSL
#define UNIT_GLSL

#include "half.glsl"

#define SLOT_TYPE(slot) (TYPES >> (2u * uint(slot)) & 3u)
#define IS_HALF(slot) (SLOT_TYPE(slot) != TYPE_F32)

#ifdef WIDE

#define Unit mat2x4
const uint WIDTH = 8u;

vec2 unpack_floats(uint64_t word)
{
    return uintBitsToFloat(unpackUint2x32(word));
}

uint64_t pack_floats(vec2 v)
{
    return packUint2x32(floatBitsToUint(v));
}

Unit unpack_unit(uint type, uvec4 words)
{
    return Unit(unpack_halves(type, words.xy), unpack_halves(type, words.zw));
}

u64vec2 pack_unit(uint type, Unit v)
{
    return u64vec2(packUint2x32(pack_halves(type, v[0])), packUint2x32(pack_halves(type, v[1])));
}

// An input: load_NAME(unit), and NAME_at(element).
#define VALUES_IN(slot, NAME) \
    layout(binding = slot) uniform usamplerBuffer NAME##_texels; \
    Unit load_##NAME(uint i) \
    { \
        if (IS_HALF(slot)) \
            return unpack_unit(SLOT_TYPE(slot), texelFetch(NAME##_texels, int(i))); \
        return Unit(uintBitsToFloat(texelFetch(NAME##_texels, int(2u * i))), \
                    uintBitsToFloat(texelFetch(NAME##_texels, int(2u * i + 1u)))); \
    } \
    float NAME##_at(uint i) \
    { \
        if (IS_HALF(slot)) \
            return unpack_half_pair(SLOT_TYPE(slot), texelFetch(NAME##_texels, int(i / 8u))[i / 2u % 4u])[i % 2u]; \
        return uintBitsToFloat(texelFetch(NAME##_texels, int(i / 4u))[i % 4u]); \
    }

// An output: store_NAME(unit, values, accumulate).
#define VALUES_OUT(slot, NAME) \
    layout(std430, binding = slot) buffer NAME##_words { u64vec4 NAME##8[]; }; \
    layout(std430, binding = slot) buffer NAME##_half_words { u64vec2 NAME##8h[]; }; \
    void store_##NAME(uint i, Unit v, bool accumulate) \
    { \
        if (IS_HALF(slot)) { \
            if (accumulate) { \
                u64vec2 old = NAME##8h[i]; \
                v += unpack_unit(SLOT_TYPE(slot), uvec4(unpackUint2x32(old.x), unpackUint2x32(old.y))); \
            } \
            NAME##8h[i] = pack_unit(SLOT_TYPE(slot), v); \
            return; \
        } \
        if (accumulate) { \
            u64vec4 old = NAME##8[i]; \
            v += Unit(vec4(unpack_floats(old.x), unpack_floats(old.y)), \
                      vec4(unpack_floats(old.z), unpack_floats(old.w))); \
        } \
        NAME##8[i] = u64vec4(pack_floats(v[0].xy), pack_floats(v[0].zw), pack_floats(v[1].xy), pack_floats(v[1].zw)); \
    }

// An output that is mostly added to: add_NAME(unit, values, accumulate). What is there is read through `old_slot`,
// where the launcher binds the same memory as an input.
#define VALUES_SUM(slot, old_slot, NAME) \
    VALUES_OUT(slot, NAME) \
    VALUES_IN(old_slot, old_##NAME) \
    void add_##NAME(uint i, Unit v, bool accumulate) \
    { \
        if (accumulate) \
            v += load_old_##NAME(i); \
        store_##NAME(i, v, false); \
    }

// Column c of a unit.
#define COLUMN(v, c) v[(c) / 4u][(c) % 4u]

// Unit NAME(Unit v): the function F of each column.
#define UNIT_MAP(NAME, F) \
    Unit NAME(Unit v) \
    { \
        return Unit(F(v[0].x), F(v[0].y), F(v[0].z), F(v[0].w), F(v[1].x), F(v[1].y), F(v[1].z), F(v[1].w)); \
    }

Unit mul(Unit a, Unit b)
{
    return matrixCompMult(a, b);
}

Unit unit_of(float v)
{
    return Unit(vec4(v), vec4(v));
}

float unit_sum(Unit v)
{
    vec4 s = v[0] + v[1];
    return (s.x + s.y) + (s.z + s.w);
}

float unit_max(Unit v)
{
    vec4 m = max(v[0], v[1]);
    return max(max(m.x, m.y), max(m.z, m.w));
}

// 1 in column c, 0 elsewhere; all 0 for c beyond the unit.
Unit unit_basis(uint c)
{
    return Unit(vec4(equal(uvec4(0, 1, 2, 3), uvec4(c))), vec4(equal(uvec4(4, 5, 6, 7), uvec4(c))));
}

// Neighbouring columns swapped.
Unit unit_swap(Unit v)
{
    return Unit(v[0].yxwz, v[1].yxwz);
}

#else

#define Unit vec4
const uint WIDTH = VECTOR ? 4u : 1u;

#define VALUES_IN(slot, NAME) \
    layout(std430, binding = slot) readonly buffer NAME##_scalars { float NAME##1[]; }; \
    layout(std430, binding = slot) readonly buffer NAME##_vectors { vec4 NAME##4[]; }; \
    layout(std430, binding = slot) readonly buffer NAME##_halves { uvec2 NAME##4h[]; }; \
    Unit load_##NAME(uint i) \
    { \
        if (IS_HALF(slot)) \
            return unpack_halves(SLOT_TYPE(slot), NAME##4h[i]); \
        if (VECTOR) \
            return NAME##4[i]; \
        return vec4(NAME##1[i], 0.0, 0.0, 0.0); \
    } \
    float NAME##_at(uint i) \
    { \
        if (IS_HALF(slot)) \
            return unpack_half_pair(SLOT_TYPE(slot), NAME##4h[i / 4u][i / 2u % 2u])[i % 2u]; \
        return NAME##1[i]; \
    }

#define VALUES_OUT(slot, NAME) \
    layout(std430, binding = slot) buffer NAME##_scalars { float NAME##1[]; }; \
    layout(std430, binding = slot) buffer NAME##_vectors { vec4 NAME##4[]; }; \
    layout(std430, binding = slot) buffer NAME##_halves { uvec2 NAME##4h[]; }; \
    void store_##NAME(uint i, Unit v, bool accumulate) \
    { \
        if (IS_HALF(slot)) { \
            if (accumulate) \
                v += unpack_halves(SLOT_TYPE(slot), NAME##4h[i]); \
            NAME##4h[i] = pack_halves(SLOT_TYPE(slot), v); \
        } else if (VECTOR) { \
            NAME##4[i] = accumulate ? NAME##4[i] + v : v; \
        } else { \
            NAME##1[i] = accumulate ? NAME##1[i] + v.x : v.x; \
        } \
    }

#define VALUES_SUM(slot, old_slot, NAME) \
    VALUES_OUT(slot, NAME) \
    void add_##NAME(uint i, Unit v, bool accumulate) \
    { \
        store_##NAME(i, v, accumulate); \
    }

#define COLUMN(v, c) v[c]

#define UNIT_MAP(NAME, F) \
    Unit NAME(Unit v) \
    { \
        Unit r = vec4(F(v.x), 0.0, 0.0, 0.0); \
        if (VECTOR) \
            r.yzw = vec3(F(v.y), F(v.z), F(v.w)); \
        return r; \
    }

Unit mul(Unit a, Unit b)
{
    return a * b;
}

Unit unit_of(float v)
{
    return vec4(v);
}

float unit_sum(Unit v)
{
    return VECTOR ? (v.x + v.y) + (v.z + v.w) : v.x;
}

float unit_max(Unit v)
{
    return VECTOR ? max(max(v.x, v.y), max(v.z, v.w)) : v.x;
}

Unit unit_basis(uint c)
{
    return vec4(equal(uvec4(0, 1, 2, 3), uvec4(c)));
}

Unit unit_swap(Unit v)
{
    return v.yxwz;
}

#endif

#endif
