// Affinity of an expert's output to its token (specification 2.3): a mean of f over the columns, or the L2 norm; here
// its terms. The includer defines the constant KIND.
#ifndef AFFINITY_GLSL
#define AFFINITY_GLSL

#include "activation.glsl"

// enum nn_affinity_kind
const uint SOFTPLUS_MEAN = 0u;
const uint L2_NORM = 1u;
const uint RELU_MEAN = 2u;
const uint SIGMOID_MEAN = 3u;
const uint SILU_MEAN = 4u;

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

// float affinity_sum(T y): sum of the terms of y's columns, COUNT of them, each COLUMN_OF(y, c). Softplus, log(1 +
// e^y), is max(y, 0) and one logarithm of the product of all 1 + e^-|y|, which is kept less 1, so that the smallest
// terms are not lost.
#define DEFINE_AFFINITY_SUM(T, COUNT, COLUMN_OF) \
    float affinity_sum(T y) \
    { \
        float product = 0.0, sum = 0.0; \
        for (uint c = 0u; c < COUNT; c++) { \
            float v = COLUMN_OF(y, c); \
            if (KIND == SOFTPLUS_MEAN) { \
                float e = accurate_exp_falling(-abs(v)); \
                product += e + product * e; \
                sum += max(v, 0.0); \
            } else { \
                sum += affinity_term(v); \
            } \
        } \
        return KIND == SOFTPLUS_MEAN ? sum + accurate_log1p(product) : sum; \
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
