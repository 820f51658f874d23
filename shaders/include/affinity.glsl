// Affinity of an expert's output to its token (specification 2.3): a mean of f over the columns, or the L2 norm.
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

float affinity_term(float y)
{
    switch (KIND) {
    case SOFTPLUS_MEAN:
        return softplus(y);
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

#endif
