// Activations and their derivatives. All are safe for any finite x.
#ifndef ACTIVATION_GLSL
#define ACTIVATION_GLSL

#include "math.glsl"

// enum nn_activation
const uint GELU_ERF = 0u;
const uint GELU_TANH = 1u;
const uint QUICK_GELU = 2u;
const uint SILU = 3u;
const uint RELU = 4u;

float sigmoid(float x)
{
    float e = accurate_exp_falling(-abs(x));
    return (x < 0.0 ? e : 1.0) / (1.0 + e);
}

float softplus_derivative(float x)
{
    return x > 20.0 ? 1.0 : sigmoid(x);
}

float relu_derivative(float x)
{
    return x > 0.0 ? 1.0 : 0.0;
}

float silu(float x)
{
    return x * sigmoid(x);
}

float silu_derivative(float x)
{
    float s = sigmoid(x);
    return s * (1.0 + x * (1.0 - s));
}

float quick_gelu(float x)
{
    return x * sigmoid(1.702 * x);
}

float quick_gelu_derivative(float x)
{
    float s = sigmoid(1.702 * x);
    return s * (1.0 + 1.702 * x * (1.0 - s));
}

// (1 + tanh u) / 2 = sigmoid(2u), with 2u = 2 sqrt(2 / pi) (x + 0.044715 x^3); beyond |x| = 20 the result is 0 or 1.
float gelu_tanh_gate(float x)
{
    float y = clamp(x, -20.0, 20.0);
    return sigmoid(1.59576912 * y * (1.0 + 0.044715 * y * y));
}

float gelu_tanh(float x)
{
    return x * gelu_tanh_gate(x);
}

float gelu_tanh_derivative(float x)
{
    float s = gelu_tanh_gate(x);
    float y = clamp(x, -20.0, 20.0);
    return s * (1.0 + y * (1.0 - s) * 1.59576912 * (1.0 + 0.134145 * y * y));
}

// The standard normal's distribution function; `bell` receives e^(-x^2 / 2). Its smaller half is erfc(z) / 2 with z =
// |x| / sqrt(2), written as e^(-z^2) P(s) / (1 + 2z), s = (z - 2) / (z + 2) (form of Shepherd & Laframboise 1981; P is
// a least-squares fit at Chebyshev nodes for z < 9.5, relative error 1.3e-8), so that no digits cancel in either tail.
float normal_cdf(float x, out float bell)
{
    float y = clamp(x, -13.2, 13.2);
    float z = abs(y) * 0.707106781;
    bell = accurate_exp_normal(-0.5 * y * y);
    float s = (z - 2.0) / (z + 2.0);
    float p = -0.00020719631;
    p = p * s - 0.000625441491;
    p = p * s + 0.000659799029;
    p = p * s + 0.00432484504;
    p = p * s - 0.00402963348;
    p = p * s - 0.0271046367;
    p = p * s + 0.0820274875;
    p = p * s - 0.0830154866;
    p = p * s - 0.0463819802;
    p = p * s + 0.638489187;
    float tail = bell * p / (1.0 + 2.0 * z);
    return y < 0.0 ? tail : 1.0 - tail;
}

float gelu_erf(float x)
{
    float bell;
    return x * normal_cdf(x, bell);
}

float gelu_erf_derivative(float x)
{
    float bell;
    float cdf = normal_cdf(x, bell);
    return cdf + clamp(x, -13.2, 13.2) * bell * 0.398942280;
}

// `kind` is a specialization constant wherever these are called, so that one branch remains.
float activation(uint kind, float x)
{
    switch (kind) {
    case GELU_ERF:
        return gelu_erf(x);
    case GELU_TANH:
        return gelu_tanh(x);
    case QUICK_GELU:
        return quick_gelu(x);
    case SILU:
        return silu(x);
    default:
        return max(x, 0.0);
    }
}

float activation_derivative(uint kind, float x)
{
    switch (kind) {
    case GELU_ERF:
        return gelu_erf_derivative(x);
    case GELU_TANH:
        return gelu_tanh_derivative(x);
    case QUICK_GELU:
        return quick_gelu_derivative(x);
    case SILU:
        return silu_derivative(x);
    default:
        return relu_derivative(x);
    }
}

#endif
