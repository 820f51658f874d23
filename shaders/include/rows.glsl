// Kernels over a matrix of `rows` rows, launched by nn/launch.c. A row is `units` units of WIDTH columns (unit.glsl).
//
// Two ways to spread the work: an invocation for one unit or some (flat_index, elementwise.glsl), or LANES invocations
// per row and several rows per workgroup (row_index, row_lane), with reductions over a row within a subgroup or through
// shared memory. With LANES 1 a reduction costs nothing.
//
// Before the include, PUSH_FIELDS names the kernel's own push constants.
#ifndef ROWS_GLSL
#define ROWS_GLSL

#ifdef WIDE
#extension GL_EXT_shader_explicit_arithmetic_types_int64 : require
#extension GL_KHR_shader_subgroup_shuffle : require
#extension GL_EXT_control_flow_attributes : require
#endif

#include "common.glsl"

layout(local_size_x = 64) in;
layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint LANES = 1;
layout(constant_id = 2) const bool VECTOR = false;
layout(constant_id = 7) const uint TYPES = 0; // 3 to 6 are the kernel's own
layout(constant_id = 8) const uint TURNS = 1; // units or rows of an invocation, where the kernel allows that
layout(constant_id = 9) const bool WITHIN_SUBGROUP = false; // the lanes of a row are at most 64 and lie in one subgroup

layout(push_constant) uniform Push
{
    uint rows;      // of this dispatch
    uint units;     // per row
    uint first_row; // of this dispatch within the whole: a large tensor is bound slice by slice
    PUSH_FIELDS
};

#include "unit.glsl"

uint flat_index()
{
    return group_index() * gl_WorkGroupSize.x + gl_LocalInvocationIndex;
}

uint row_lane()
{
    return gl_LocalInvocationIndex % LANES;
}

// Rows that a workgroup has at a time.
uint group_rows()
{
    return gl_WorkGroupSize.x / LANES;
}

uint row_index()
{
    return group_index() * group_rows() + gl_LocalInvocationIndex / LANES;
}

const float LOWEST = -3.402823466e38;

// Over the lanes of a row; every invocation of the workgroup calls them, every lane gets the result. The order is
// fixed.
shared float row_shared[256];

float row_sum(float v)
{
    if (LANES == 1)
        return v;
#ifdef WIDE
    if (WITHIN_SUBGROUP) {
        [[unroll]] for (uint i = 0; i < 6; i++)
            if (1u << i < LANES)
                v += subgroupShuffleXor(v, 1u << i);
        return v;
    }
#endif
    uint i = gl_LocalInvocationIndex;
    barrier(); // an earlier reduction may still be read
    row_shared[i] = v;
    for (uint step = LANES / 2; step > 0; step /= 2) {
        barrier();
        if (row_lane() < step)
            row_shared[i] += row_shared[i + step];
    }
    barrier();
    return row_shared[i - row_lane()];
}

float row_max(float v)
{
    if (LANES == 1)
        return v;
#ifdef WIDE
    if (WITHIN_SUBGROUP) {
        [[unroll]] for (uint i = 0; i < 6; i++)
            if (1u << i < LANES)
                v = max(v, subgroupShuffleXor(v, 1u << i));
        return v;
    }
#endif
    uint i = gl_LocalInvocationIndex;
    barrier();
    row_shared[i] = v;
    for (uint step = LANES / 2; step > 0; step /= 2) {
        barrier();
        if (row_lane() < step)
            row_shared[i] = max(row_shared[i], row_shared[i + step]);
    }
    barrier();
    return row_shared[i - row_lane()];
}

#endif
