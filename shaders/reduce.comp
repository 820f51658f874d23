#version 450
#extension GL_GOOGLE_include_directive : require

// Sums x, or its squares, over chunks of `units` units ("rows"), times `scale`. The last chunk is shorter.
// LANES invocations per chunk.
#define PUSH_FIELDS uint total_units; float scale;
#include "rows.glsl"

layout(constant_id = 3) const bool SQUARE = false;

VALUES_IN(0, x)
layout(std430, binding = 1) writeonly buffer Sums { float sums[]; };

void main()
{
    uint row = row_index();
    uint end = row < rows ? min(units, total_units - (first_row + row) * units) : 0u;
    Unit sum = unit_of(0.0);
    uint u = row_lane();
    if (u < end)
        do {
            Unit v = load_x(row * units + u);
            sum += SQUARE ? mul(v, v) : v;
        } while ((u += LANES) < end);
    float total = row_sum(unit_sum(sum));
    if (row < rows && row_lane() == 0u)
        sums[row] = total * scale;
}
