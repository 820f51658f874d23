// y ^= key ^ x, 16 bytes at a time, x read as a texel buffer. Exact, which lets a device show that its texel path is.
#version 460
#include "common.glsl"

layout(local_size_x_id = 0, local_size_x = 64) in;
layout(constant_id = 1) const uint key = 0;

layout(set = 0, binding = 0) uniform utextureBuffer x;
layout(set = 0, binding = 1) buffer Y
{
    uvec4 y[];
};

layout(push_constant) uniform Push
{
    uint count; // of uvec4
};

void main()
{
    for (uint i = GLOBAL_INDEX; i < count; i += GLOBAL_SIZE)
        y[i] ^= texelFetch(x, int(i)) ^ uvec4(key);
}
