#version 450
#extension GL_GOOGLE_include_directive : require
// Backward of diversity.comp (specification 3.5): dy_i += (g_i - n_i (n_i . g_i)) / |y_i| with n = y / |y| and
// g_i = d 2 / (T K^2) sum over j != i of n_j. A winner of norm up to 1e-12 gets nothing (3.6). One invocation per unit of
// a token.
#define PUSH_FIELDS uint tokens;
#include "rows.glsl"

layout(constant_id = 3) const uint TOP_K = 2;

layout(std430, binding = 0) readonly buffer Indices { int indices[]; };       // [T, K]
VALUES_IN(1, y)                                                               // [E, T, C]
layout(std430, binding = 2) readonly buffer Products { float gram[]; };       // [T, K, K]
layout(std430, binding = 3) readonly buffer LossGradient { float d_loss[]; };
VALUES_OUT(4, dy)                                                             // [E, T, C]

void main()
{
    uint flat_i = flat_index();
    if (flat_i >= rows * units)
        return;
    uint token = flat_i / units;
    float scale = d_loss[0] * 2.0 / (float(tokens) * float(TOP_K * TOP_K));
    uint place[TOP_K];
    vec4 n[TOP_K];
    float norm[TOP_K];
    vec4 sum = vec4(0.0);
    for (uint i = 0u; i < TOP_K; i++) {
        place[i] = (uint(indices[token * TOP_K + i]) * tokens + first_row + token) * units + flat_i % units;
        norm[i] = sqrt(gram[(token * TOP_K + i) * TOP_K + i]);
        n[i] = load_y(place[i]) / max(norm[i], 1e-12);
        sum += n[i];
    }
    for (uint i = 0u; i < TOP_K; i++) {
        if (norm[i] <= 1e-12)
            continue;
        float along = 0.0; // sum over j != i of n_i . n_j
        for (uint j = 0u; j < TOP_K; j++)
            along += j == i ? 0.0 : gram[(token * TOP_K + i) * TOP_K + j] / (norm[i] * max(norm[j], 1e-12));
        store_dy(place[i], scale * (sum - n[i] - along * n[i]) / norm[i], true);
    }
}
