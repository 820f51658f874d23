#version 450
#extension GL_GOOGLE_include_directive : require
// Per token: the products of its winners' outputs y_i . y_j, and sum over i != j of their cosines / K^2 (specification
// 3.1). LANES invocations per token.
#define PUSH_FIELDS
#include "rows.glsl"

layout(constant_id = 3) const uint TOP_K = 2;

VALUES_IN(0, y)                                                          // [T, K, C]
layout(std430, binding = 1) writeonly buffer Products { float gram[]; }; // [T, K, K]
layout(std430, binding = 2) writeonly buffer Losses { float loss[]; };   // [T]

float product(uint token, bool inside, uint i, uint j)
{
    uint a = (token * TOP_K + i) * units, b = (token * TOP_K + j) * units;
    float sum = 0.0;
    uint u = row_lane(), end = inside ? units : 0u;
    if (u < end)
        do
            sum += unit_sum(mul(load_y(a + u), load_y(b + u)));
        while ((u += LANES) < end);
    sum = row_sum(sum);
    if (inside && row_lane() == 0u) {
        gram[(token * TOP_K + i) * TOP_K + j] = sum;
        gram[(token * TOP_K + j) * TOP_K + i] = sum;
    }
    return sum;
}

void main()
{
    uint token = row_index();
    bool inside = token < rows;
    float norm[TOP_K];
    float sum = 0.0;
    for (uint i = 0u; i < TOP_K; i++) {
        norm[i] = max(sqrt(product(token, inside, i, i)), 1e-12);
        for (uint j = 0u; j < i; j++)
            sum += product(token, inside, i, j) / (norm[i] * norm[j]);
    }
    if (inside && row_lane() == 0u)
        loss[token] = 2.0 * sum / float(TOP_K * TOP_K);
}
