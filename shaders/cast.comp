#version 450
#extension GL_GOOGLE_include_directive : require

// y = x in the type of y, added to what is there or written.
#define PUSH_FIELDS
#include "rows.glsl"

layout(constant_id = 3) const bool ACCUMULATE = false;

VALUES_IN(0, x)
VALUES_SUM(1, 2, y)

void work(uint i)
{
    add_y(i, load_x(i), ACCUMULATE);
}

#include "elementwise.glsl"
