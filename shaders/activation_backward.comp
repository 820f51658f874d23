#version 450
#extension GL_GOOGLE_include_directive : require

// Of y = act(a) * b (b = 1 unless GATED): da = dy act'(a) b, db = dy act(a). One invocation per unit.
#define PUSH_FIELDS uint flags;
#include "rows.glsl"
#include "activation.glsl"

layout(constant_id = 3) const uint KIND = 0;
layout(constant_id = 4) const bool GATED = false;

const uint WANT_A = 1u;
const uint ADD_A = 2u;
const uint WANT_B = 4u;
const uint ADD_B = 8u;

VALUES_IN(0, a)
VALUES_IN(1, b)
VALUES_IN(2, dy)
VALUES_OUT(3, da)
VALUES_OUT(4, db)

vec4 values(vec4 v)
{
    if (VECTOR)
        return vec4(activation(KIND, v.x), activation(KIND, v.y), activation(KIND, v.z), activation(KIND, v.w));
    return vec4(activation(KIND, v.x), 0.0, 0.0, 0.0);
}

vec4 derivatives(vec4 v)
{
    vec4 d = vec4(activation_derivative(KIND, v.x), 0.0, 0.0, 0.0);
    if (VECTOR)
        d.yzw = vec3(activation_derivative(KIND, v.y), activation_derivative(KIND, v.z),
                     activation_derivative(KIND, v.w));
    return d;
}

void main()
{
    uint i = flat_index();
    if (i >= rows)
        return;
    vec4 v = load_a(i);
    vec4 g = load_dy(i);
    if ((flags & WANT_A) != 0u) {
        vec4 d = g * derivatives(v);
        if (GATED)
            d *= load_b(i);
        store_da(i, d, (flags & ADD_A) != 0u);
    }
    if (GATED && (flags & WANT_B) != 0u)
        store_db(i, g * values(v), (flags & ADD_B) != 0u);
}
