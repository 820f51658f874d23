#version 450
#extension GL_GOOGLE_include_directive : require

// values[i] *= factor. One invocation per value.
#define PUSH_FIELDS
#include "rows.glsl"

layout(std430, binding = 0) buffer Values { float values[]; };
layout(std430, binding = 1) readonly buffer Factor { float factor; };

void main()
{
    uint i = flat_index();
    if (i < rows)
        values[i] *= factor;
}
