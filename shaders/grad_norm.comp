#version 450
#extension GL_GOOGLE_include_directive : require

// From the partial sums of squares of all gradients: their norm, and what the optimizer makes of it. A step whose norm
// is not finite is skipped. Where SCALED, the gradients are those of the loss times a scale that doubles after `growth`
// good steps and that a skipped one halves (Micikevicius et al. 2018). LANES invocations for the one row.
#define PUSH_FIELDS float clip, lr, keep, log_beta1, log_beta2; uint step, growth;
#include "rows.glsl"
#include "math.glsl"

layout(constant_id = 3) const bool SCALED = false;

layout(std430, binding = 0) readonly buffer Sums { float sums[]; };
layout(std430, binding = 1) writeonly buffer Update
{
    float norm;             // of the gradients themselves, before clipping
    float loss_scale;       // of this step
    float factor;           // of the gradients as they are: undoes the scale, brings the norm down to `clip` (0: off)
    float rate;             // lr / (1 - beta1^t) after t updates
    float root_correction2; // 1 / sqrt(1 - beta2^t)
    float kept;             // of a value that decays
    uint skip;
};
layout(std430, binding = 2) buffer State
{
    float scale;
    uint good, skipped; // steps since the last change of the scale; of all steps
};

const float LEAST = 1.0, MOST = 16777216.0;

// 1 - exp(x) of x <= 0, without cancellation.
float one_minus_exp(float x)
{
    float series = 0.0;
    for (float n = 9.0; n > 1.0; n -= 1.0)
        series = (1.0 + series) * x / n;
    return x < -0.5 ? 1.0 - exp(x) : -x * (1.0 + series);
}

void change_scale(bool overflow)
{
    good = overflow ? 0 : good + 1;
    skipped += overflow ? 1 : 0;
    if (overflow)
        scale = max(scale / 2.0, LEAST);
    if (good == growth) {
        scale = min(scale * 2.0, MOST);
        good = 0;
    }
}

void main()
{
    float sum = 0.0;
    for (uint u = row_lane(); u < units; u += LANES)
        sum += sums[u];
    float root = sqrt(row_sum(sum));
    if (gl_LocalInvocationIndex != 0u)
        return;
    loss_scale = 1.0;
    float unscale = 1.0;
    uint updates = step;
    bool overflow = !finite(root);
    skip = overflow ? 1 : 0;
    if (SCALED) {
        loss_scale = scale;
        unscale = 1.0 / scale;
        updates -= skipped;
        change_scale(overflow);
    }
    root *= unscale;
    norm = root;
    kept = keep;
    factor = clip > 0.0 && root > clip ? clip / root * unscale : unscale;
    rate = lr / one_minus_exp(float(updates) * log_beta1);
    root_correction2 = inversesqrt(one_minus_exp(float(updates) * log_beta2));
}
