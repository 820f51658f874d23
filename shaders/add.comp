#version 450
#extension GL_GOOGLE_include_directive : require

// y = a + b. With period > 0, b has `period` rows that repeat over the rows of a. One invocation per unit.
#define PUSH_FIELDS uint period;
#include "rows.glsl"

VALUES_IN(0, a)
VALUES_IN(1, b)
VALUES_OUT(2, y)

void main()
{
    uint i = flat_index();
    if (i >= rows * units)
        return;
    uint j = period == 0u ? i : (first_row + i / units) % period * units + i % units;
    store_y(i, load_a(i) + load_b(j), false);
}
