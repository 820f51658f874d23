// The dispatch plan: a stable counting sort of (token, choice) pairs by expert. Invocation id looks after expert id %
// EXPERTS and chunk id / EXPERTS of the pairs (or tiles), so counts and places follow from fixed positions, without
// atomics. At most 256 experts.
#ifndef PLAN_GLSL
#define PLAN_GLSL

layout(local_size_x = 256) in;
layout(constant_id = 1) const uint EXPERTS = 4;
const uint CHUNKS = 256u / EXPERTS;

shared uint chunk_counts[256];
shared uint starts[EXPERTS + 1u];

// From this invocation's count to the place of its first pair: pairs of smaller experts come first, then those of
// earlier chunks. All invocations call it; starts[] then holds the offset of every expert, and the total.
uint first_place(uint count)
{
    uint id = gl_LocalInvocationID.x;
    chunk_counts[id] = count;
    barrier();
    if (id < EXPERTS) {
        uint sum = 0u;
        for (uint c = 0u; c < CHUNKS; c++) {
            uint here = chunk_counts[c * EXPERTS + id];
            chunk_counts[c * EXPERTS + id] = sum;
            sum += here;
        }
        starts[id + 1u] = sum;
    }
    barrier();
    if (id == 0u) {
        starts[0] = 0u;
        for (uint e = 1u; e <= EXPERTS; e++)
            starts[e] += starts[e - 1u];
    }
    barrier();
    return id < CHUNKS * EXPERTS ? chunk_counts[id] + starts[id % EXPERTS] : 0u;
}

#endif
