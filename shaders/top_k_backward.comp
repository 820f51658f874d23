#version 450
#extension GL_GOOGLE_include_directive : require

// dx [rows, units] = the gradients of the picked values at their columns, 0 elsewhere. One invocation per element.
#define PUSH_FIELDS uint k, accumulate;
#include "rows.glsl"

layout(std430, binding = 0) readonly buffer Indices { int indices[]; };
layout(std430, binding = 1) readonly buffer Gradients { float dvalues[]; };
layout(std430, binding = 2) buffer Dx { float dx[]; };

void main()
{
    uint i = flat_index();
    if (i >= rows * units)
        return;
    uint row = i / units;
    int column = int(i % units);
    float sum = accumulate != 0u ? dx[i] : 0.0;
    for (uint pick = row * k; pick < (row + 1u) * k; pick++)
        sum += indices[pick] == column ? dvalues[pick] : 0.0;
    dx[i] = sum;
}
