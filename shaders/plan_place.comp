#version 450
#extension GL_GOOGLE_include_directive : require
// Large plans, 3 of 3: the place of every pair of a tile.
#include "plan_tile.glsl"

layout(std430, binding = 1) readonly buffer Starts { uint first[]; };  // [tiles, E], from plan_scan.comp
layout(std430, binding = 2) writeonly buffer Rows { int rows[]; };     // token of each sorted row
layout(std430, binding = 3) writeonly buffer Places { int places[]; }; // sorted row of each pair

void main()
{
    uint count = load_tile(), begin = gl_WorkGroupID.x * PLAN_TILE;
    for (uint e = gl_LocalInvocationID.x; e < EXPERTS; e += 64u) {
        uint place = first[gl_WorkGroupID.x * EXPERTS + e];
        for (uint i = 0u; i < count; i++) {
            if (tile[i] == e) {
                rows[place] = int((begin + i) / top_k);
                places[begin + i] = int(place);
                place++;
            }
        }
    }
}
