#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require

// Of each row of x, or with SUM of sum = x + y: result = (row - mean) / sqrt(variance + eps) * gain + bias; without
// LAYER mean and bias are 0 (RMSNorm). stats [rows, 2]: mean and reciprocal deviation, for the backward pass. LANES
// invocations per row, which hold HELD units each, and TURNS rows one after the other.
#define PUSH_FIELDS float eps;
#include "rows.glsl"

layout(constant_id = 3) const bool LAYER = false;
layout(constant_id = 4) const bool SUM = false;
layout(constant_id = 5) const uint HELD = 1;

VALUES_IN(0, x)
VALUES_IN(1, y)
VALUES_IN(2, gain)
VALUES_IN(3, bias)
VALUES_OUT(4, sum)
VALUES_OUT(5, result)
layout(std430, binding = 6) writeonly buffer Stats { vec2 stats[]; };

Unit gains[HELD], biases[HELD];

void normalise(uint row)
{
    uint begin = row * units;
    uint end = row < rows ? units : 0u;
    float columns = float(units * WIDTH);
    Unit held[HELD];
    float total = 0.0;
    [[unroll]] for (uint k = 0u; k < HELD; k++) {
        uint u = row_lane() + k * LANES;
        held[k] = unit_of(0.0);
        if (u < end) {
            held[k] = load_x(begin + u);
            if (SUM) {
                held[k] += load_y(begin + u);
                store_sum(begin + u, held[k], false);
            }
            if (LAYER)
                total += unit_sum(held[k]);
        }
    }
    float mean = LAYER ? row_sum(total) / columns : 0.0;
    float squares = 0.0;
    [[unroll]] for (uint k = 0u; k < HELD; k++) {
        held[k] -= mean;
        if (row_lane() + k * LANES < end)
            squares += unit_sum(mul(held[k], held[k]));
    }
    float scale = 1.0 / sqrt(row_sum(squares) / columns + eps);
    [[unroll]] for (uint k = 0u; k < HELD; k++) {
        uint u = row_lane() + k * LANES;
        if (u < end) {
            Unit v = mul(held[k] * scale, gains[k]);
            store_result(begin + u, LAYER ? v + biases[k] : v, false);
        }
    }
    if (row < rows && row_lane() == 0u)
        stats[row] = vec2(mean, scale);
}

void main()
{
    [[unroll]] for (uint k = 0u; k < HELD; k++) {
        uint u = row_lane() + k * LANES;
        gains[k] = u < units ? load_gain(u) : unit_of(0.0);
        biases[k] = LAYER && u < units ? load_bias(u) : unit_of(0.0);
    }
    uint first = group_index() * group_rows() * TURNS;
    uint turn = 0u;
    do {
        normalise(first + gl_LocalInvocationIndex / LANES);
        first += group_rows();
    } while (++turn < TURNS && first < rows);
}
