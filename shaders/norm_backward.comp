#version 450
#extension GL_GOOGLE_include_directive : require

// With n = (x - mean) scale and g = dy gain: dx = scale (g - mean(g) - n mean(g n)); without LAYER the mean(g) term is
// absent. LANES invocations per row.
#define PUSH_FIELDS uint accumulate;
#include "rows.glsl"

layout(constant_id = 3) const bool LAYER = false;

VALUES_IN(0, x)
VALUES_IN(1, gain)
layout(std430, binding = 2) readonly buffer Stats { vec2 stats[]; };
VALUES_IN(3, dy)
VALUES_SUM(4, 5, dx)

void main()
{
    uint row = row_index();
    uint begin = row * units;
    uint end = row < rows ? units : 0u;
    float columns = float(units * WIDTH);
    vec2 stat = row < rows ? stats[row] : vec2(0.0);
    float sum = 0.0;
    float product = 0.0;
    for (uint u = row_lane(); u < end; u += LANES) {
        Unit g = mul(load_dy(begin + u), load_gain(u));
        if (LAYER)
            sum += unit_sum(g);
        product += unit_sum(mul(g, load_x(begin + u) - stat.x));
    }
    float mean_g = LAYER ? row_sum(sum) / columns : 0.0;
    float mean_gn = row_sum(product) * stat.y / columns;
    for (uint u = row_lane(); u < end; u += LANES) {
        Unit g = mul(load_dy(begin + u), load_gain(u));
        Unit n = (load_x(begin + u) - stat.x) * stat.y;
        add_dx(begin + u, (g - mean_g - n * mean_gn) * stat.y, accumulate != 0u);
    }
}
