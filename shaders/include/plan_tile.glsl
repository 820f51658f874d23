// A tile of PLAN_TILE pairs of a large plan, in shared memory.
layout(local_size_x = 64) in;
layout(constant_id = 1) const uint EXPERTS = 4;
const uint PLAN_TILE = 256u;

layout(push_constant) uniform Push
{
    uint pairs, top_k;
};

layout(std430, binding = 0) readonly buffer Indices { int indices[]; }; // expert of each pair

shared uint tile[PLAN_TILE];

// Loads the workgroup's tile; returns the pairs in it.
uint load_tile()
{
    uint first = gl_WorkGroupID.x * PLAN_TILE, count = min(PLAN_TILE, pairs - first);
    for (uint i = gl_LocalInvocationID.x; i < count; i += 64u)
        tile[i] = uint(indices[first + i]);
    barrier();
    return count;
}
