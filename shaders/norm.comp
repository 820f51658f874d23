#version 450
#extension GL_GOOGLE_include_directive : require

// y = (x - mean) / sqrt(variance + eps) * gain + bias of each row; without LAYER mean and bias are 0 (RMSNorm).
// stats [rows, 2]: mean and reciprocal deviation, for the backward pass. LANES invocations per row.
#define PUSH_FIELDS float eps;
#include "rows.glsl"

layout(constant_id = 3) const bool LAYER = false;

VALUES_IN(0, x)
VALUES_IN(1, gain)
VALUES_IN(2, bias)
VALUES_OUT(3, y)
layout(std430, binding = 4) writeonly buffer Stats { vec2 stats[]; };

void main()
{
    uint row = row_index();
    uint begin = row * units;
    uint end = row < rows ? units : 0u;
    float columns = float(units * WIDTH);
    float mean = 0.0;
    if (LAYER) {
        float sum = 0.0;
        for (uint u = row_lane(); u < end; u += LANES)
            sum += unit_sum(load_x(begin + u));
        mean = row_sum(sum) / columns;
    }
    float squares = 0.0;
    for (uint u = row_lane(); u < end; u += LANES) {
        Unit centred = load_x(begin + u) - mean;
        squares += unit_sum(mul(centred, centred));
    }
    float scale = 1.0 / sqrt(row_sum(squares) / columns + eps);
    for (uint u = row_lane(); u < end; u += LANES) {
        Unit v = mul((load_x(begin + u) - mean) * scale, load_gain(u));
        if (LAYER)
            v += load_bias(u);
        store_y(begin + u, v, false);
    }
    if (row < rows && row_lane() == 0u)
        stats[row] = vec2(mean, scale);
}
