// Reading a matrix of 32 or 16-bit values through texels of 16 bytes, four values at a time.
#ifndef GEMM_TEXEL_GLSL
#define GEMM_TEXEL_GLSL

#include "half.glsl"

// Values in a texel.
uint texel_values(uint type)
{
    return type == TYPE_F32 ? 4 : 8;
}

// Four values of a texel: where they have 16 bits, half of it.
vec4 texel_part(uint type, uvec4 texel, bool upper)
{
    return type == TYPE_F32 ? uintBitsToFloat(texel) : unpack_halves(type, upper ? texel.zw : texel.xy);
}

// Four values from number `first` of a matrix on, out of the two texels that they may lie in.
vec4 texel_funnel(uint type, uvec4 low, uvec4 high, uint first)
{
    uint word = type == TYPE_F32 ? first % 4 : first / 2 % 4;
    uvec4 x = (word & 2) == 0 ? low : uvec4(low.zw, high.xy);
    uint y = (word & 2) == 0 ? high.x : high.z;
    if ((word & 1) != 0)
        x = uvec4(x.yzw, y);
    if (type == TYPE_F32)
        return uintBitsToFloat(x);
    return unpack_halves(type, first % 2 == 0 ? x.xy : x.xy >> 16 | x.yz << 16);
}

// The same from a buffer, any four: twice the fetches of an aligned one.
#define TEXEL_FETCH_ANY(NAME, BUFFER, TYPE) \
    vec4 NAME(uint first) \
    { \
        int texel = int(first / texel_values(TYPE)); \
        return texel_funnel(TYPE, texelFetch(BUFFER, texel), texelFetch(BUFFER, texel + 1), first); \
    }

// 0 for those of four values, `first` and so on, that lie at `end` or beyond.
vec4 before(uint end, uint first, vec4 v)
{
    return mix(vec4(0), v, lessThan(uvec4(first, first + 1, first + 2, first + 3), uvec4(end)));
}

#endif
