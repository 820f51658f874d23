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
    uint u = row_lane();
    if (u < end)
        do
            top = max(top, unit_max(load_x(begin + u)));
        while ((u += LANES) < end);
    top = row_max(top);
    float sum = 0.0;
    u = row_lane();
    if (u < end)
        do
            sum += unit_sum(exponentials(load_x(begin + u) - top));
        while ((u += LANES) < end);
    float scale = 1.0 / row_sum(sum);
    u = row_lane();
    if (u < end)
        do
            store_y(begin + u, exponentials(load_x(begin + u) - top) * scale, false);
        while ((u += LANES) < end);
}
