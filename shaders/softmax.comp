#version 450
#extension GL_GOOGLE_include_directive : require

// y = softmax of each row. LANES invocations per row.
#define PUSH_FIELDS
#include "rows.glsl"
#include "math.glsl"

VALUES_IN(0, x)
VALUES_OUT(1, y)

UNIT_MAP(exponentials, accurate_exp)

void main()
{
    uint row = row_index();
    uint begin = row * units;
    uint end = row < rows ? units : 0u;
    float top = LOWEST;
    for (uint u = row_lane(); u < end; u += LANES)
        top = max(top, unit_max(load_x(begin + u)));
    top = row_max(top);
    float sum = 0.0;
    for (uint u = row_lane(); u < end; u += LANES)
        sum += unit_sum(exponentials(load_x(begin + u) - top));
    float scale = 1.0 / row_sum(sum);
    for (uint u = row_lane(); u < end; u += LANES)
        store_y(begin + u, exponentials(load_x(begin + u) - top) * scale, false);
}
