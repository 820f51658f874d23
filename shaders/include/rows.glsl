// Kernels over a matrix of `rows` rows, launched by nn/launch.c. A row is `units` units: 4 columns each where VECTOR (one
// 16-byte access), else 1 column (the .x of a vec4 whose rest is 0 when loaded and ignored when stored).
//
// Two ways to spread the work: one invocation per unit (flat_index), or LANES invocations per row and several rows per
// workgroup (row_index, row_lane), with reductions over a row through shared memory. With LANES 1, best on CPU drivers
// when rows are many, a reduction costs nothing.
//
// Before the include, PUSH_FIELDS names the kernel's own push constants.
#ifndef ROWS_GLSL
#define ROWS_GLSL

layout(local_size_x = 64) in;
layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint LANES = 1;
layout(constant_id = 2) const bool VECTOR = false;

layout(push_constant) uniform Push
{
    uint rows;      // of this dispatch
    uint units;     // per row
    uint first_row; // of this dispatch within the whole: a large tensor is bound slice by slice
    PUSH_FIELDS
};

const uint WIDTH = VECTOR ? 4u : 1u; // columns per unit

uint group_index()
{
    return gl_WorkGroupID.y * gl_NumWorkGroups.x + gl_WorkGroupID.x;
}

uint flat_index()
{
    return group_index() * gl_WorkGroupSize.x + gl_LocalInvocationIndex;
}

uint row_lane()
{
    return gl_LocalInvocationIndex % LANES;
}

uint row_index()
{
    return group_index() * (gl_WorkGroupSize.x / LANES) + gl_LocalInvocationIndex / LANES;
}

// An input of floats: load_NAME(unit).
#define VALUES_IN(slot, NAME) \
    layout(std430, binding = slot) readonly buffer NAME##_scalars { float NAME##1[]; }; \
    layout(std430, binding = slot) readonly buffer NAME##_vectors { vec4 NAME##4[]; }; \
    vec4 load_##NAME(uint i) \
    { \
        if (VECTOR) \
            return NAME##4[i]; \
        return vec4(NAME##1[i], 0.0, 0.0, 0.0); \
    }

// An output of floats: store_NAME(unit, values, accumulate).
#define VALUES_OUT(slot, NAME) \
    layout(std430, binding = slot) buffer NAME##_scalars { float NAME##1[]; }; \
    layout(std430, binding = slot) buffer NAME##_vectors { vec4 NAME##4[]; }; \
    void store_##NAME(uint i, vec4 v, bool accumulate) \
    { \
        if (VECTOR) \
            NAME##4[i] = accumulate ? NAME##4[i] + v : v; \
        else \
            NAME##1[i] = accumulate ? NAME##1[i] + v.x : v.x; \
    }

// Over the columns of one unit.
float unit_sum(vec4 v)
{
    return VECTOR ? (v.x + v.y) + (v.z + v.w) : v.x;
}

float unit_max(vec4 v)
{
    return VECTOR ? max(max(v.x, v.y), max(v.z, v.w)) : v.x;
}

const float LOWEST = -3.402823466e38;

// Over the lanes of a row; every invocation of the workgroup calls them, every lane gets the result. The order is fixed.
shared float row_shared[256];

float row_sum(float v)
{
    if (LANES == 1)
        return v;
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
