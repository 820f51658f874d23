// 16-bit floats in memory, two to a word (the lower half first), without any 16-bit storage or arithmetic of the
// device. `type` is enum nn_dtype; give a specialization constant, so that the other branch costs nothing.
//
// Rounding is to nearest, ties to even, by integer arithmetic: packHalf2x16 may round as the driver likes (lavapipe
// truncates, and so saturates where loss scaling waits for an infinity).
#ifndef HALF_GLSL
#define HALF_GLSL

const uint TYPE_F32 = 0u;
const uint TYPE_F16 = 2u;
const uint TYPE_BF16 = 3u;

// In the lower halves of four words.
uvec4 f16_bits(vec4 v)
{
    uvec4 u = floatBitsToUint(v);
    uvec4 size = u & 0x7fffffffu;
    uvec4 normal = (size + 0xc8000fffu + (size >> 13u & 1u)) >> 13u;
    // The last place of 0.5 is the smallest f16.
    uvec4 small = floatBitsToUint(uintBitsToFloat(size) + 0.5) - 0x3f000000u;
    uvec4 huge = mix(uvec4(0x7c00u), uvec4(0x7e00u), greaterThan(size, uvec4(0x7f800000u)));
    uvec4 bits = mix(normal, small, lessThan(size, uvec4(0x38800000u)));
    bits = mix(bits, huge, greaterThanEqual(size, uvec4(0x47800000u)));
    return bits | u >> 16u & 0x8000u;
}

// In the upper halves of four words; the lower halves are not cleared.
uvec4 bf16_bits(vec4 v)
{
    uvec4 u = floatBitsToUint(v);
    uvec4 rounded = u + 0x7fffu + (u >> 16u & 1u);
    return mix(rounded, u | 0x400000u, greaterThan(u & 0x7fffffffu, uvec4(0x7f800000u)));
}

uvec2 pack_halves(uint type, vec4 v)
{
    if (type == TYPE_F16) {
        uvec4 b = f16_bits(v);
        return b.xz | b.yw << 16u;
    }
    uvec4 b = bf16_bits(v);
    return b.xz >> 16u | b.yw & 0xffff0000u;
}

vec4 unpack_halves(uint type, uvec2 words)
{
    if (type == TYPE_F16)
        return vec4(unpackHalf2x16(words.x), unpackHalf2x16(words.y));
    return uintBitsToFloat(uvec4(words.x << 16u, words.x & 0xffff0000u, words.y << 16u, words.y & 0xffff0000u));
}

// The values of one word.
vec2 unpack_half_pair(uint type, uint word)
{
    return type == TYPE_F16 ? unpackHalf2x16(word) : uintBitsToFloat(uvec2(word << 16u, word & 0xffff0000u));
}

uint pack_half_pair(uint type, vec2 v)
{
    return pack_halves(type, vec4(v, 0.0, 0.0)).x;
}

#endif
