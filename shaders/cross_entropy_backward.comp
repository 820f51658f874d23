#version 450
#extension GL_GOOGLE_include_directive : require

// dx = scale dloss (softmax - onehot(label)) from the saved log sum exp; 0 where the label is no column.
// LANES invocations per row.
#define PUSH_FIELDS float scale; uint accumulate;
#include "rows.glsl"
#include "math.glsl"

VALUES_IN(0, x)
layout(std430, binding = 1) readonly buffer Labels { int labels[]; };
layout(std430, binding = 2) readonly buffer LogSums { float log_sums[]; };
layout(std430, binding = 3) readonly buffer Dloss { float dloss[]; };
VALUES_OUT(4, dx)

float gradient(float v, uint column, uint label)
{
    return accurate_exp(v) - (column == label ? 1.0 : 0.0);
}

void main()
{
    uint row = row_index();
    if (row >= rows)
        return;
    uint begin = row * units;
    uint label = uint(labels[row]);
    float weight = label < units * WIDTH ? scale * dloss[0] : 0.0;
    float log_sum = log_sums[row];
    for (uint u = row_lane(); u < units; u += LANES) {
        vec4 g = vec4(0.0);
        if (weight != 0.0) {
            vec4 v = load_x(begin + u) - log_sum;
            uint column = u * WIDTH;
            g.x = gradient(v.x, column, label);
            if (VECTOR)
                g.yzw = vec3(gradient(v.y, column + 1u, label), gradient(v.z, column + 2u, label),
                             gradient(v.w, column + 3u, label));
        }
        store_dx(begin + u, weight * g, accumulate != 0u);
    }
}
