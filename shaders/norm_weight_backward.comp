#version 450
#extension GL_GOOGLE_include_directive : require

// Partial sums over chunks of `chunk_rows` rows, in order: of dy n (gradient of the gain) and, with LAYER, of dy (of the
// bias) behind it. column_sum.comp adds the chunks. One invocation per chunk and unit.
#define PUSH_FIELDS uint in_rows, chunk_rows;
#include "rows.glsl"

layout(constant_id = 3) const bool LAYER = false;

VALUES_IN(0, x)
layout(std430, binding = 1) readonly buffer Stats { vec2 stats[]; };
VALUES_IN(2, dy)
VALUES_OUT(3, partial)

void main()
{
    uint i = flat_index();
    if (i >= rows * units)
        return;
    uint chunk = i / units;
    uint unit = i % units;
    uint begin = chunk * chunk_rows;
    uint count = min(chunk_rows, in_rows - (first_row + chunk) * chunk_rows);
    vec4 gain = vec4(0.0);
    vec4 bias = vec4(0.0);
    for (uint r = begin; r < begin + count; r++) {
        vec4 g = load_dy(r * units + unit);
        vec2 stat = stats[r];
        gain += g * (load_x(r * units + unit) - stat.x) * stat.y;
        bias += g;
    }
    if (LAYER) {
        store_partial(chunk * 2u * units + unit, gain, false);
        store_partial((chunk * 2u + 1u) * units + unit, bias, false);
    } else {
        store_partial(chunk * units + unit, gain, false);
    }
}
