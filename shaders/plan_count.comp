#version 450
#extension GL_GOOGLE_include_directive : require
// Large plans, 1 of 3: how many pairs of each tile go to each expert.
#include "plan_tile.glsl"

layout(std430, binding = 1) writeonly buffer Counts { uint counts[]; }; // [tiles, E]

void main()
{
    uint count = load_tile();
    for (uint e = gl_LocalInvocationID.x; e < EXPERTS; e += 64u) {
        uint sum = 0u;
        for (uint i = 0u; i < count; i++)
            sum += uint(tile[i] == e);
        counts[gl_WorkGroupID.x * EXPERTS + e] = sum;
    }
}
