// Reads, writes or copies memory: the device's peaks of bandwidth, for csmoe bench. Each workgroup has a stretch of its
// own. WIDE, for CPU drivers: texel reads and 32-byte stores, see include/unit.glsl.
#version 460
#extension GL_EXT_control_flow_attributes : require
#ifdef WIDE
#extension GL_EXT_shader_explicit_arithmetic_types_int64 : require
#endif
#include "common.glsl"

layout(local_size_x_id = 0, local_size_x = 64) in;
layout(constant_id = 1) const bool READS = true;
layout(constant_id = 2) const bool WRITES = true;

#ifdef WIDE
layout(set = 0, binding = 0) uniform utextureBuffer x;
layout(set = 0, binding = 1) writeonly buffer Y
{
    u64vec4 y[];
};
struct Item {
    uvec4 low, high;
};
Item load(uint i)
{
    return Item(texelFetch(x, int(2u * i)), texelFetch(x, int(2u * i + 1u)));
}
void store(uint i, Item v)
{
    y[i] = u64vec4(packUint2x32(v.low.xy), packUint2x32(v.low.zw), packUint2x32(v.high.xy), packUint2x32(v.high.zw));
}
#else
layout(set = 0, binding = 0) readonly buffer X
{
    uvec4 x[];
};
layout(set = 0, binding = 1) writeonly buffer Y
{
    uvec4 y[];
};
struct Item {
    uvec4 low, high; // high: unused
};
Item load(uint i)
{
    return Item(x[i], uvec4(0));
}
void store(uint i, Item v)
{
    y[i] = v.low;
}
#endif

layout(push_constant) uniform Push
{
    uint value; // where only written
    uint never; // a sum that does not occur, which the compiler cannot know
};

const uint TURNS = 16; // items an invocation handles; the grid covers the memory exactly

void main()
{
    uint first = group_index() * gl_WorkGroupSize.x * TURNS + gl_LocalInvocationID.x;
    uvec4 sum = uvec4(0);
    [[unroll]] for (uint turn = 0; turn < TURNS; turn++) {
        uint i = first + turn * gl_WorkGroupSize.x;
        Item v = Item(uvec4(value), uvec4(value));
        if (READS)
            v = load(i);
        if (WRITES)
            store(i, v);
        else
            sum ^= v.low ^ v.high;
    }
    if (!WRITES && (sum.x ^ sum.y ^ sum.z ^ sum.w) == never)
        store(first, Item(sum, sum));
}
