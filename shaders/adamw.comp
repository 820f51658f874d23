#version 450
#extension GL_GOOGLE_include_directive : require

// AdamW (Loshchilov & Hutter 2019) on one slab of parameters; units before `decay_units` decay. Value and moments are
// bound twice, to be read and to be written.
#define PUSH_FIELDS uint decay_units; float beta1, beta2, eps;
#include "rows.glsl"

VALUES_IN(0, value)
VALUES_IN(1, gradient)
VALUES_IN(2, m)
VALUES_IN(3, v)
layout(std430, binding = 4) readonly buffer Update
{
    float norm, loss_scale, factor, rate, root_correction2, kept; // grad_norm.comp
    uint skip;
};
VALUES_OUT(5, new_value)
VALUES_OUT(6, new_m)
VALUES_OUT(7, new_v)

// 1 / (sqrt(v) / sqrt(1 - beta2^step) + eps)
float reciprocal_deviation(float v)
{
    return 1.0 / (sqrt(v) * root_correction2 + eps);
}

UNIT_MAP(reciprocal_deviations, reciprocal_deviation)

void work(uint i)
{
    if (skip != 0u)
        return;
    Unit g = load_gradient(i) * factor;
    Unit first = load_m(i) * beta1 + g * (1.0 - beta1);
    Unit second = load_v(i) * beta2 + mul(g, g) * (1.0 - beta2);
    store_new_m(i, first, false);
    store_new_v(i, second, false);
    Unit rest = load_value(i) * (first_row + i < decay_units ? kept : 1.0);
    store_new_value(i, rest - mul(first, reciprocal_deviations(second)) * rate, false);
}

#include "elementwise.glsl"
