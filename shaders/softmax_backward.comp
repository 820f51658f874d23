#version 450
#extension GL_GOOGLE_include_directive : require

// dx = y (dy - sum(y dy)) of each row. LANES invocations per row.
#define PUSH_FIELDS uint accumulate;
#include "rows.glsl"

VALUES_IN(0, y)
VALUES_IN(1, dy)
VALUES_SUM(2, 3, dx)

void main()
{
    uint row = row_index();
    uint begin = row * units;
    uint end = row < rows ? units : 0u;
    float sum = 0.0;
    for (uint u = row_lane(); u < end; u += LANES)
        sum += unit_sum(mul(load_y(begin + u), load_dy(begin + u)));
    sum = row_sum(sum);
    for (uint u = row_lane(); u < end; u += LANES)
        add_dx(begin + u, mul(load_y(begin + u), load_dy(begin + u) - sum), accumulate != 0u);
}
