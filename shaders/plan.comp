#version 450
#extension GL_GOOGLE_include_directive : require
// The whole dispatch plan by one workgroup, for few pairs: every invocation reads its chunk twice.
#include "plan.glsl"

layout(push_constant) uniform Push
{
    uint pairs, top_k;
};

layout(std430, binding = 0) readonly buffer Indices { int indices[]; };  // expert of each pair
layout(std430, binding = 1) writeonly buffer Offsets { int offsets[]; }; // [E + 1]
layout(std430, binding = 2) writeonly buffer Rows { int rows[]; };       // token of each sorted row
layout(std430, binding = 3) writeonly buffer Places { int places[]; };   // sorted row of each pair

void main()
{
    uint id = gl_LocalInvocationID.x, expert = id % EXPERTS;
    uint length = (pairs + CHUNKS - 1u) / CHUNKS;
    uint begin = min(id / EXPERTS * length, pairs), end = id < CHUNKS * EXPERTS ? min(begin + length, pairs) : begin;
    uint count = 0u;
    for (uint i = begin; i < end; i++)
        count += uint(uint(indices[i]) == expert);
    uint place = first_place(count);
    for (uint i = begin; i < end; i++) {
        if (uint(indices[i]) == expert) {
            rows[place] = int(i / top_k);
            places[i] = int(place);
            place++;
        }
    }
    for (uint e = id; e <= EXPERTS; e += 256u)
        offsets[e] = int(starts[e]);
}
