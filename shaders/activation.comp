#version 450
#extension GL_GOOGLE_include_directive : require

// y = act(a), or act(a) * b where GATED. One invocation per unit.
#define PUSH_FIELDS
#include "rows.glsl"
#include "activation.glsl"

layout(constant_id = 3) const uint KIND = 0;
layout(constant_id = 4) const bool GATED = false;

VALUES_IN(0, a)
VALUES_IN(1, b)
VALUES_OUT(2, y)

void main()
{
    uint i = flat_index();
    if (i >= rows)
        return;
    vec4 v = load_a(i);
    vec4 r = vec4(activation(KIND, v.x), 0.0, 0.0, 0.0);
    if (VECTOR)
        r.yzw = vec3(activation(KIND, v.y), activation(KIND, v.z), activation(KIND, v.w));
    if (GATED)
        r *= load_b(i);
    store_y(i, r, false);
}
