#version 450
#extension GL_GOOGLE_include_directive : require

// da = dy and db = dy, each added to what is there or written. One invocation per unit.
#define PUSH_FIELDS uint flags;
#include "rows.glsl"

const uint WANT_A = 1u;
const uint ADD_A = 2u;
const uint WANT_B = 4u;
const uint ADD_B = 8u;

VALUES_IN(0, dy)
VALUES_SUM(1, 3, da)
VALUES_SUM(2, 4, db)

void main()
{
    uint i = flat_index();
    if (i >= rows)
        return;
    Unit g = load_dy(i);
    if ((flags & WANT_A) != 0u)
        add_da(i, g, (flags & ADD_A) != 0u);
    if ((flags & WANT_B) != 0u)
        add_db(i, g, (flags & ADD_B) != 0u);
}
