#version 450
#extension GL_GOOGLE_include_directive : require

// y = act(a), or act(a) * b where GATED.
#define PUSH_FIELDS
#include "rows.glsl"
#include "activation.glsl"

layout(constant_id = 3) const uint KIND = 0;
layout(constant_id = 4) const bool GATED = false;

VALUES_IN(0, a)
VALUES_IN(1, b)
VALUES_OUT(2, y)

float value(float x)
{
    return activation(KIND, x);
}

UNIT_MAP(values, value)

void work(uint i)
{
    Unit v = values(load_a(i));
    if (GATED)
        v = mul(v, load_b(i));
    store_y(i, v, false);
}

#include "elementwise.glsl"
