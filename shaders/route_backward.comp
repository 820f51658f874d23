#version 450
#extension GL_GOOGLE_include_directive : require
// Backward of route.comp (specification 3.5), one invocation per token: to the logits from the mixing weights, from the
// balance loss through p (the first choices f are constants), and from the z-loss.
#include "math.glsl"

layout(local_size_x = 64) in;
layout(constant_id = 1) const uint EXPERTS = 4;
layout(constant_id = 2) const uint TOP_K = 2;
layout(constant_id = 3) const bool ACCUMULATE = false;

layout(push_constant) uniform Push
{
    uint tokens, per_sequence;
};

layout(std430, binding = 0) readonly buffer Logits { float z[]; };                  // [T, E]
layout(std430, binding = 1) readonly buffer Probabilities { float p[]; };           // [T, E]
layout(std430, binding = 2) readonly buffer Indices { int indices[]; };             // [T, K]
layout(std430, binding = 3) readonly buffer Weights { float weights[]; };           // [T, K]
layout(std430, binding = 4) readonly buffer Statistics { float statistics[]; };
layout(std430, binding = 5) readonly buffer WeightsGradient { float d_weights[]; }; // [T, K]
layout(std430, binding = 6) readonly buffer BalanceGradient { float d_balance[]; };
layout(std430, binding = 7) readonly buffer SquareGradient { float d_square[]; };
layout(std430, binding = 8) buffer LogitsGradient { float d_z[]; };                 // [T, E]

void main()
{
    uint t = gl_GlobalInvocationID.x;
    if (t >= tokens)
        return;
    uint row = t * EXPERTS, pick = t * TOP_K, first = 2u + t / per_sequence * EXPERTS;
    float scale = d_balance[0] * float(EXPERTS) / float(tokens);
    float mean = 0.0; // of the gradient of p, under p
    for (uint e = 0u; e < EXPERTS; e++)
        mean += p[row + e] * scale * statistics[first + e];
    // lse = z - log p of any expert; the first choice has the largest p.
    uint best = row + uint(indices[pick]);
    float square = d_square[0] * 2.0 * (z[best] - accurate_log(p[best])) / float(tokens);
    for (uint e = 0u; e < EXPERTS; e++) {
        float gradient = p[row + e] * (scale * statistics[first + e] - mean + square);
        d_z[row + e] = ACCUMULATE ? d_z[row + e] + gradient : gradient;
    }
    float weighted = 0.0;
    for (uint k = 0u; k < TOP_K; k++)
        weighted += weights[pick + k] * d_weights[pick + k];
    for (uint k = 0u; k < TOP_K; k++)
        d_z[row + uint(indices[pick + k])] += weights[pick + k] * (d_weights[pick + k] - weighted);
}
