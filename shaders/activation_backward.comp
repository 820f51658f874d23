#version 450
#extension GL_GOOGLE_include_directive : require

// Of y = act(a) * b (b = 1 unless GATED): da = dy act'(a) b, db = dy act(a).
#define PUSH_FIELDS
#include "rows.glsl"
#include "activation.glsl"

layout(constant_id = 3) const uint KIND = 0;
layout(constant_id = 4) const bool GATED = false;
layout(constant_id = 5) const uint FLAGS = 0;

const uint WANT_A = 1u;
const uint ADD_A = 2u;
const uint WANT_B = 4u;
const uint ADD_B = 8u;

VALUES_IN(0, a)
VALUES_IN(1, b)
VALUES_IN(2, dy)
VALUES_SUM(3, 5, da)
VALUES_SUM(4, 6, db)

float value(float x)
{
    return activation(KIND, x);
}

float derivative(float x)
{
    return activation_derivative(KIND, x);
}

UNIT_MAP(values, value)
UNIT_MAP(derivatives, derivative)

void work(uint i)
{
    Unit v = load_a(i);
    Unit g = load_dy(i);
    if ((FLAGS & WANT_A) != 0u) {
        Unit d = mul(g, derivatives(v));
        if (GATED)
            d = mul(d, load_b(i));
        add_da(i, d, (FLAGS & ADD_A) != 0u);
    }
    if (GATED && (FLAGS & WANT_B) != 0u)
        add_db(i, mul(g, values(v)), (FLAGS & ADD_B) != 0u);
}

#include "elementwise.glsl"
