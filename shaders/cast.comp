#version 450
#extension GL_GOOGLE_include_directive : require

// y = x in the type of y, added to what is there or written. One invocation per unit.
#define PUSH_FIELDS uint accumulate;
#include "rows.glsl"

VALUES_IN(0, x)
VALUES_SUM(1, 2, y)

void main()
{
    uint i = flat_index();
    if (i < rows)
        add_y(i, load_x(i), accumulate != 0u);
}
