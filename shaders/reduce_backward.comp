#version 450
#extension GL_GOOGLE_include_directive : require

// dx = scale dy, or 2 scale dy x for a sum of squares.
#define PUSH_FIELDS float scale;
#include "rows.glsl"

layout(constant_id = 3) const bool SQUARE = false;
layout(constant_id = 4) const bool ACCUMULATE = false;

VALUES_IN(0, x)
layout(std430, binding = 1) readonly buffer Dy { float dy[]; };
VALUES_SUM(2, 3, dx)

void work(uint i)
{
    Unit g = SQUARE ? load_x(i) * (2.0 * scale * dy[0]) : unit_of(scale * dy[0]);
    add_dx(i, g, ACCUMULATE);
}

#include "elementwise.glsl"
