#version 450
#extension GL_GOOGLE_include_directive : require

// From the partial sums of squares: the norm of all gradients, and the factor that brings it down to `clip` (1 where
// it is smaller or clip is 0). LANES invocations for the one row.
#define PUSH_FIELDS float clip;
#include "rows.glsl"

layout(std430, binding = 0) readonly buffer Sums { float sums[]; };
layout(std430, binding = 1) writeonly buffer Result { float norm, scale; };

void main()
{
    float sum = 0.0;
    for (uint u = row_lane(); u < units; u += LANES)
        sum += sums[u];
    float root = sqrt(row_sum(sum));
    if (gl_LocalInvocationIndex == 0u) {
        norm = root;
        scale = clip > 0.0 && root > clip ? clip / root : 1.0;
    }
}
