#version 450
#extension GL_GOOGLE_include_directive : require
// Backward of diversity.comp (specification 3.5): dy_i += (g_i - n_i (n_i . g_i)) / |y_i| with n = y / |y| and
// g_i = d 2 / (T K^2) sum over j != i of n_j. A winner of norm up to 1e-12 gets nothing (3.6). LANES invocations per
// token.
#define PUSH_FIELDS uint tokens;
#include "rows.glsl"

layout(constant_id = 3) const uint TOP_K = 2;
layout(constant_id = 4) const bool ACCUMULATE = false;

VALUES_IN(0, y)                                                         // [T, K, C]
layout(std430, binding = 1) readonly buffer Products { float gram[]; }; // [T, K, K]
layout(std430, binding = 2) readonly buffer LossGradient { float d_loss[]; };
VALUES_SUM(3, 4, dy)                                                    // [T, K, C]

void main()
{
    uint token = row_index();
    if (token >= rows)
        return;
    float scale = d_loss[0] * 2.0 / (float(tokens) * float(TOP_K * TOP_K));
    float inverse[TOP_K], factor[TOP_K], along[TOP_K]; // along: 1 + sum over j != i of n_i . n_j
    for (uint i = 0u; i < TOP_K; i++) {
        float norm = sqrt(gram[(token * TOP_K + i) * TOP_K + i]);
        inverse[i] = 1.0 / max(norm, 1e-12);
        factor[i] = norm > 1e-12 ? scale / norm : 0.0;
    }
    for (uint i = 0u; i < TOP_K; i++) {
        along[i] = 1.0;
        for (uint j = 0u; j < TOP_K; j++)
            along[i] += j == i ? 0.0 : gram[(token * TOP_K + i) * TOP_K + j] * (inverse[i] * inverse[j]);
    }
    uint u = row_lane();
    if (u >= units)
        return;
    do {
        Unit n[TOP_K];
        Unit sum = unit_of(0.0);
        for (uint i = 0u; i < TOP_K; i++) {
            n[i] = inverse[i] * load_y((token * TOP_K + i) * units + u);
            sum += n[i];
        }
        for (uint i = 0u; i < TOP_K; i++)
            add_dy((token * TOP_K + i) * units + u, factor[i] * (sum - along[i] * n[i]), ACCUMULATE);
    } while ((u += LANES) < units);
}
