#version 450
#extension GL_GOOGLE_include_directive : require

// y = a + b. With period > 0, b has `period` rows that repeat over the rows of a. LANES invocations per row.
#define PUSH_FIELDS uint period;
#include "rows.glsl"

VALUES_IN(0, a)
VALUES_IN(1, b)
VALUES_OUT(2, y)

void main()
{
    uint row = row_index();
    if (row >= rows)
        return;
    uint begin = row * units;
    uint b_begin = period == 0u ? begin : (first_row + row) % period * units;
    for (uint u = row_lane(); u < units; u += LANES)
        store_y(begin + u, load_a(begin + u) + load_b(b_begin + u), false);
}
