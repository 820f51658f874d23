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
VALUES_OUT(1, da)
VALUES_OUT(2, db)

void main()
{
    uint i = flat_index();
    if (i >= rows * units)
        return;
    vec4 g = load_dy(i);
    if ((flags & WANT_A) != 0u)
        store_da(i, g, (flags & ADD_A) != 0u);
    if ((flags & WANT_B) != 0u)
        store_db(i, g, (flags & ADD_B) != 0u);
}
