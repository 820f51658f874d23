#version 450
#extension GL_GOOGLE_include_directive : require
// Backward of compete.comp (specification 3.5), one invocation per token: to the affinities from the mixing weights and
// from the balance loss through q; to the logits from the router loss, whose target q is detached.
#include "activation.glsl"

layout(local_size_x = 64) in;
layout(constant_id = 1) const uint EXPERTS = 4;
layout(constant_id = 2) const uint TOP_K = 2;
layout(constant_id = 3) const bool NORM_SIGMOID = false;
layout(constant_id = 4) const bool GATE = true; // the logits want a gradient ...
layout(constant_id = 5) const bool GATE_ACCUMULATE = false;
layout(constant_id = 6) const bool EXPERT = true; // ... and so do the affinities
layout(constant_id = 7) const bool EXPERT_ACCUMULATE = false;

layout(push_constant) uniform Push
{
    uint tokens, per_sequence;
    float theta;
};

layout(std430, binding = 0) readonly buffer Logits { float z[]; };                  // [T, E]
layout(std430, binding = 1) readonly buffer Affinities { float s[]; };              // [T, E]
layout(std430, binding = 2) readonly buffer Target { float q[]; };                  // [T, E]
layout(std430, binding = 3) readonly buffer Indices { int indices[]; };             // [T, K]
layout(std430, binding = 4) readonly buffer Weights { float weights[]; };           // [T, K]
layout(std430, binding = 5) readonly buffer Statistics { float statistics[]; };
layout(std430, binding = 6) readonly buffer WeightsGradient { float d_weights[]; }; // [T, K]
layout(std430, binding = 7) readonly buffer RouterGradient { float d_router[]; };
layout(std430, binding = 8) readonly buffer BalanceGradient { float d_balance[]; };
layout(std430, binding = 9) buffer LogitsGradient { float d_z[]; };                 // [T, E]
layout(std430, binding = 10) buffer AffinitiesGradient { float d_s[]; };            // [T, E]

uint row, pick;

bool wins(uint expert)
{
    bool found = false;
    for (uint k = 0u; k < TOP_K; k++)
        found = found || uint(indices[pick + k]) == expert;
    return found;
}

// Derivative of the router loss by p of an expert, without d_router.
float router_slope(uint e, float p)
{
    float slope = 2.0 * (p - q[row + e]) / (float(tokens) * float(EXPERTS));
    if (theta != 0.0 && wins(e))
        slope += theta * 2.0 * (p - q[row + e]) / (float(tokens) * float(TOP_K));
    return slope;
}

void gate_backward()
{
    float top = z[row], sum = 0.0, mean = 0.0;
    for (uint e = 1u; e < EXPERTS; e++)
        top = max(top, z[row + e]);
    for (uint e = 0u; e < EXPERTS; e++)
        sum += accurate_exp(z[row + e] - top);
    for (uint e = 0u; e < EXPERTS; e++) {
        float p = accurate_exp(z[row + e] - top) / sum;
        mean += p * router_slope(e, p);
    }
    for (uint e = 0u; e < EXPERTS; e++) {
        float p = accurate_exp(z[row + e] - top) / sum;
        float gradient = d_router[0] * p * (router_slope(e, p) - mean);
        d_z[row + e] = GATE_ACCUMULATE ? d_z[row + e] + gradient : gradient;
    }
}

void expert_backward(uint sequence)
{
    uint first = 2u + sequence * EXPERTS;
    float scale = d_balance[0] * float(EXPERTS) / float(tokens), mean = 0.0;
    for (uint e = 0u; e < EXPERTS; e++)
        mean += q[row + e] * scale * statistics[first + e];
    for (uint e = 0u; e < EXPERTS; e++) {
        float gradient = q[row + e] * (scale * statistics[first + e] - mean);
        d_s[row + e] = EXPERT_ACCUMULATE ? d_s[row + e] + gradient : gradient;
    }
    float sum = 0.0, weighted = 0.0;
    for (uint k = 0u; k < TOP_K; k++) {
        float score = s[row + uint(indices[pick + k])];
        sum += NORM_SIGMOID ? sigmoid(score) : score;
        weighted += weights[pick + k] * d_weights[pick + k];
    }
    for (uint k = 0u; k < TOP_K; k++) {
        uint at = row + uint(indices[pick + k]);
        float v = sigmoid(s[at]);
        float slope = NORM_SIGMOID ? v * (1.0 - v) : 1.0;
        d_s[at] += slope * (d_weights[pick + k] - weighted) / sum;
    }
}

void main()
{
    uint t = gl_GlobalInvocationID.x;
    if (t >= tokens)
        return;
    row = t * EXPERTS;
    pick = t * TOP_K;
    if (GATE)
        gate_backward();
    if (EXPERT)
        expert_backward(t / per_sequence);
}
