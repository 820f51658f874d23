#version 450
#extension GL_GOOGLE_include_directive : require
// dy [E, T, C] from the gradient of s [T, E] (specification 3.5). One invocation per unit.
#define PUSH_FIELDS uint tokens, experts, accumulate;
#include "rows.glsl"
#include "affinity.glsl"

VALUES_IN(0, y)
layout(std430, binding = 1) readonly buffer Affinities { float s[]; };
layout(std430, binding = 2) readonly buffer AffinitiesGradient { float d_s[]; };
VALUES_OUT(3, dy)

void main()
{
    uint i = flat_index();
    if (i >= rows * units)
        return;
    uint row = first_row + i / units;
    uint at = row % tokens * experts + row / tokens;
    vec4 v = load_y(i), slope = vec4(0.0);
    if (KIND == L2_NORM) {
        slope = s[at] > 0.0 ? v / s[at] : vec4(0.0);
    } else {
        for (uint c = 0u; c < WIDTH; c++)
            slope[c] = affinity_slope(v[c]) / float(units * WIDTH);
    }
    store_dy(i, d_s[at] * slope, accumulate != 0u);
}
