// Affinity of an expert's output to its token (specification 2.3): a mean of f over the columns, or the L2 norm. After
// rows.glsl.
#ifndef AFFINITY_GLSL
#define AFFINITY_GLSL

#include "activation.glsl"

// enum nn_affinity_kind
const uint SOFTPLUS_MEAN = 0u;
const uint L2_NORM = 1u;
const uint RELU_MEAN = 2u;
const uint SIGMOID_MEAN = 3u;
const uint SILU_MEAN = 4u;

layout(constant_id = 3) const uint KIND = SOFTPLUS_MEAN;

// Sum of softplus(y) = log(1 + e^y) over a unit's columns: of max(y, 0), and one logarithm of the product of all
// 1 + e^-|y|. The product is kept less 1, so that the smallest terms are not lost.
float softplus_sum(Unit y)
{
    float product = 0.0, sum = 0.0;
    for (uint c = 0u; c < WIDTH; c++) {
        float v = COLUMN(y, c), e = accurate_exp_falling(-abs(v));
        product += e + product * e;
        sum += max(v, 0.0);
    }
    return sum + accurate_log1p(product);
}

float affinity_term(float y)
{
    switch (KIND) {
    case L2_NORM:
        return y * y;
    case RELU_MEAN:
        return max(y, 0.0);
    case SIGMOID_MEAN:
        return sigmoid(y);
    default:
        return silu(y);
    }
}

UNIT_MAP(affinity_terms, affinity_term)

// Sum of the terms of a unit.
float affinity_sum(Unit y)
{
    return KIND == SOFTPLUS_MEAN ? softplus_sum(y) : unit_sum(affinity_terms(y));
}

// Derivative of the term of a mean.
float affinity_slope(float y)
{
    switch (KIND) {
    case SOFTPLUS_MEAN:
        return softplus_derivative(y);
    case RELU_MEAN:
        return relu_derivative(y);
    case SIGMOID_MEAN:
        return sigmoid(y) * sigmoid(-y);
    default:
        return silu_derivative(y);
    }
}

UNIT_MAP(affinity_slopes, affinity_slope)

#endif
