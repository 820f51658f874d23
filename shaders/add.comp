#version 450
#extension GL_GOOGLE_include_directive : require

// y = a + b; where PERIODIC the first `period` units of b repeat.
#define PUSH_FIELDS uint period;
#include "rows.glsl"

layout(constant_id = 3) const bool PERIODIC = false;

VALUES_IN(0, a)
VALUES_IN(1, b)
VALUES_OUT(2, y)

void work(uint i)
{
    uint from = PERIODIC ? (first_row + i) % period : i;
    store_y(i, load_a(i) + load_b(from), false);
}

#include "elementwise.glsl"
