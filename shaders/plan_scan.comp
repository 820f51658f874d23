#version 450
#extension GL_GOOGLE_include_directive : require
// Large plans, 2 of 3, one workgroup: from the tiles' counts to the place of each tile's first pair of each expert.
#include "plan.glsl"

layout(push_constant) uniform Push
{
    uint tiles;
};

layout(std430, binding = 0) buffer Counts { uint counts[]; };            // [tiles, E]
layout(std430, binding = 1) writeonly buffer Offsets { int offsets[]; }; // [E + 1]

void main()
{
    uint id = gl_LocalInvocationID.x, expert = id % EXPERTS;
    uint length = (tiles + CHUNKS - 1u) / CHUNKS;
    uint begin = min(id / EXPERTS * length, tiles), end = id < CHUNKS * EXPERTS ? min(begin + length, tiles) : begin;
    uint count = 0u;
    for (uint t = begin; t < end; t++)
        count += counts[t * EXPERTS + expert];
    uint place = first_place(count);
    for (uint t = begin; t < end; t++) {
        uint here = counts[t * EXPERTS + expert];
        counts[t * EXPERTS + expert] = place;
        place += here;
    }
    for (uint e = id; e <= EXPERTS; e += 256u)
        offsets[e] = int(starts[e]);
}
