#version 450
// The gradients of biases, sums of columns per batch entry or group: out[e, chunk, :] (+)= sum of a share of the rows
// of entry e, in a fixed order: blocks of rows for each of the workgroup's lanes in y, then the lanes. Very tall inputs
// take two passes, the second one over the chunks of the first. -DTEXEL: rows of whole 16-byte texels, four columns per
// invocation, for drivers where loads are dear.
#extension GL_GOOGLE_include_directive : require
#include "half.glsl"

layout(local_size_x = 8, local_size_x_id = 0, local_size_y = 16, local_size_y_id = 2) in;
#define LANES gl_WorkGroupSize.y
layout(constant_id = 1) const uint TYPE = 0; // of the input; 16-bit rows are of whole words

layout(push_constant) uniform Push
{
    uint rows, columns; // rows of an entry where not grouped
    uint chunks;        // each entry's rows are shared among as many workgroups
    uint groups;        // 0: entry e has rows e * rows and up; else rows offsets[e]..offsets[e+1]-1
    uint accumulate;
    uint stride; // elements between two sums of a column
};

layout(std430, binding = 1) buffer Out { float sums[]; };
layout(std430, binding = 2) readonly buffer Offsets { int offsets[]; };

#ifdef TEXEL
layout(binding = 0) uniform usamplerBuffer x;
#define VALUE vec4
const uint WIDTH = 4;

vec4 load(uint at)
{
    if (TYPE == TYPE_F32)
        return uintBitsToFloat(texelFetch(x, int(at / 4)));
    uvec4 texel = texelFetch(x, int(at / 8));
    return unpack_halves(TYPE, at / 4 % 2 == 0 ? texel.xy : texel.zw);
}
#else
layout(std430, binding = 0) readonly buffer In { uint x[]; };
#define VALUE float
const uint WIDTH = 1;

float load(uint at)
{
    return TYPE == TYPE_F32 ? uintBitsToFloat(x[at]) : unpack_half_pair(TYPE, x[at / 2])[at % 2];
}
#endif

const uint BLOCK = 128; // rows that are summed before they go to the whole, which keeps rounding small
const uint MOST_INVOCATIONS = 256;
shared VALUE lane_sums[MOST_INVOCATIONS];

void store(uint at, float value)
{
    sums[at] = accumulate != 0 ? sums[at] + value : value;
}

void main()
{
    uint column = gl_GlobalInvocationID.x * WIDTH, chunk = gl_WorkGroupID.y, entry = gl_WorkGroupID.z;
    uint first = groups != 0 ? uint(offsets[entry]) : entry * rows;
    uint end = groups != 0 ? uint(offsets[entry + 1]) : first + rows;
    uint share = (end - first + chunks - 1) / chunks;
    uint from = min(first + chunk * share, end), to = column < columns ? min(from + share, end) : from;
    VALUE sum = VALUE(0);
    for (uint block = from + gl_LocalInvocationID.y; block < to; block += BLOCK * LANES) {
        VALUE part = VALUE(0);
        for (uint row = block; row < min(block + BLOCK * LANES, to); row += LANES)
            part += load(row * columns + column);
        sum += part;
    }
    if (LANES > 1) {
        lane_sums[gl_LocalInvocationIndex] = sum;
        barrier();
        for (uint lane = 1; lane < LANES && gl_LocalInvocationID.y == 0; ++lane)
            sum += lane_sums[gl_LocalInvocationIndex + lane * gl_WorkGroupSize.x];
    }
    if (gl_LocalInvocationID.y != 0 || column >= columns)
        return;
    uint at = (entry * chunks + chunk) * stride + column;
#ifdef TEXEL
    for (uint j = 0; j < WIDTH; ++j)
        store(at + j, sum[j]);
#else
    store(at, sum);
#endif
}
