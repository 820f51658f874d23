#version 450
#extension GL_GOOGLE_include_directive : require

// Partial sums over chunks of `chunk_rows` rows, in order: of dy n (for the gain's gradient) and, with LAYER, of dy
// (for the bias's). bias_sum.comp adds the chunks. One invocation per chunk and unit.
#define PUSH_FIELDS uint in_rows, chunk_rows;
#include "rows.glsl"

layout(constant_id = 3) const bool LAYER = false;

VALUES_IN(0, x)
layout(std430, binding = 1) readonly buffer Stats { vec2 stats[]; };
VALUES_IN(2, dy)
VALUES_OUT(3, gain)
VALUES_OUT(4, bias)

void main()
{
    uint i = flat_index();
    if (i >= rows * units)
        return;
    uint chunk = i / units;
    uint unit = i % units;
    uint begin = chunk * chunk_rows;
    uint count = min(chunk_rows, in_rows - (first_row + chunk) * chunk_rows);
    Unit gain_sum = unit_of(0.0);
    Unit bias_sum = unit_of(0.0);
    for (uint r = begin; r < begin + count; r++) {
        Unit g = load_dy(r * units + unit);
        vec2 stat = stats[r];
        gain_sum += mul(g, (load_x(r * units + unit) - stat.x) * stat.y);
        bias_sum += g;
    }
    store_gain(i, gain_sum, false);
    if (LAYER)
        store_bias(i, bias_sum, false);
}
