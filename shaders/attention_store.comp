#version 450
#extension GL_GOOGLE_include_directive : require
// Appends the keys and values of new tokens to a cache: row `past + n` of each cache is new row n. Groups: vec4s of the
// new keys, in workgroups of LANES.
#include "attention.glsl"

layout(binding = 0, std430) readonly buffer Fused { uvec4 qkv[]; };
layout(binding = 1, std430) writeonly buffer Keys { uvec4 cache_k[]; };   // [T, kv_heads, WIDTH]
layout(binding = 2, std430) writeonly buffer Values { uvec4 cache_v[]; }; // the same

void main()
{
    uint n = gl_GlobalInvocationID.x, width = push.heads / push.group * WIDTH;
    if (n >= push.queries * width)
        return;
    uint row = n / width, c = n % width, first = row * push.q_row + push.heads * WIDTH;
    cache_k[push.past * width + n] = qkv[first + c];
    cache_v[push.past * width + n] = qkv[first + width + c];
}
