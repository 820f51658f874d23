#version 450
#extension GL_GOOGLE_include_directive : require

// dx = scale dloss (softmax - onehot(label)) from the saved log sum exp; 0 where the label is no column. x has the
// columns from first_column on, of `columns` in all. LANES invocations per row.
#define PUSH_FIELDS float scale; uint first_column, columns;
#include "rows.glsl"
#include "math.glsl"

layout(constant_id = 3) const bool ACCUMULATE = false;

VALUES_IN(0, x)
layout(std430, binding = 1) readonly buffer Labels { int labels[]; };
layout(std430, binding = 2) readonly buffer LogSums { float log_sums[]; };
layout(std430, binding = 3) readonly buffer Dloss { float dloss[]; };
VALUES_SUM(4, 5, dx)

UNIT_MAP(exponentials, accurate_exp)

void main()
{
    uint row = row_index();
    if (row >= rows)
        return;
    uint begin = row * units;
    uint label = uint(labels[row]);
    float weight = label < columns ? scale * dloss[0] : 0.0;
    float log_sum = log_sums[row];
    uint u = row_lane();
    if (u < units)
        do {
            Unit g = unit_of(0.0);
            if (weight != 0.0)
                g = (exponentials(load_x(begin + u) - log_sum) - unit_basis(label - first_column - u * WIDTH)) * weight;
            add_dx(begin + u, g, ACCUMULATE);
        } while ((u += LANES) < units);
}
