#version 450
#extension GL_GOOGLE_include_directive : require

// AdamW (Loshchilov & Hutter 2019) on one slab of parameters, 4 elements per invocation; those before `decay_units` decay.
#define PUSH_FIELDS uint decay_units; float rate, beta1, beta2, eps, keep, root_correction2;
#include "rows.glsl"

layout(std430, binding = 0) buffer Value { vec4 value[]; };
layout(std430, binding = 1) readonly buffer Gradient { vec4 gradient[]; };
layout(std430, binding = 2) buffer First { vec4 m[]; };
layout(std430, binding = 3) buffer Second { vec4 v[]; };
layout(std430, binding = 4) readonly buffer Clip { float norm, scale; };

void main()
{
    uint i = flat_index();
    if (i >= rows)
        return;
    vec4 g = gradient[i] * scale;
    vec4 first = mix(g, m[i], beta1);
    vec4 second = mix(g * g, v[i], beta2);
    m[i] = first;
    v[i] = second;
    vec4 kept = value[i] * (first_row + i < decay_units ? keep : 1.0);
    value[i] = kept - rate * first / (sqrt(second) * root_correction2 + eps);
}
