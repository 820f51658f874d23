#version 450
#extension GL_GOOGLE_include_directive : require

// dx = y (dy - sum(y dy)) of each row. LANES invocations per row.
#define PUSH_FIELDS
#include "rows.glsl"

layout(constant_id = 3) const bool ACCUMULATE = false;

VALUES_IN(0, y)
VALUES_IN(1, dy)
VALUES_SUM(2, 3, dx)

void main()
{
    uint row = row_index();
    uint begin = row * units;
    uint end = row < rows ? units : 0u;
    float sum = 0.0;
    uint u = row_lane();
    if (u < end)
        do
            sum += unit_sum(mul(load_y(begin + u), load_dy(begin + u)));
        while ((u += LANES) < end);
    sum = row_sum(sum);
    u = row_lane();
    if (u < end)
        do
            add_dx(begin + u, mul(load_y(begin + u), load_dy(begin + u) - sum), ACCUMULATE);
        while ((u += LANES) < end);
}
