// y = a * x + b * y + c, element by element: sums, scalings and copies of one.
#version 460
#include "common.glsl"

layout(local_size_x_id = 0, local_size_x = 64) in;

layout(set = 0, binding = 0) readonly buffer X
{
    float x[];
};
layout(set = 0, binding = 1) buffer Y
{
    float y[];
};

layout(push_constant) uniform Push
{
    uint count;
    float a, b, c;
};

void main()
{
    for (uint i = GLOBAL_INDEX; i < count; i += GLOBAL_SIZE)
        y[i] = fma(a, x[i], fma(b, y[i], c));
}
