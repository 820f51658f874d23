#version 450
#extension GL_GOOGLE_include_directive : require
// Backward of combine.comp for the same window of ys: dw[t, k] = dy[t] . ys[row], dys[row] = w dy[t]. LANES invocations
// per token.
#define PUSH_FIELDS uint first_source, sources, flags;
#include "rows.glsl"

layout(constant_id = 3) const uint TOP_K = 2;
layout(constant_id = 4) const bool PLACED = true;

const uint WRITE_YS = 1u;
const uint ADD_YS = 2u;
const uint WRITE_W = 4u;
const uint ADD_W = 8u;

layout(std430, binding = 0) readonly buffer Places { int places[]; };
layout(std430, binding = 1) readonly buffer Weights { float weights[]; };
VALUES_IN(2, dy)
VALUES_IN(3, ys)
VALUES_SUM(4, 6, dys)
layout(std430, binding = 5) buffer WeightsGradient { float d_weights[]; };

float pair_gradient(uint token, uint place, float weight)
{
    float product = 0.0;
    for (uint u = row_lane(); u < units; u += LANES) {
        Unit g = load_dy(token * units + u);
        if ((flags & WRITE_W) != 0u)
            product += unit_sum(mul(g, load_ys(place * units + u)));
        if ((flags & WRITE_YS) != 0u)
            add_dys(place * units + u, weight * g, (flags & ADD_YS) != 0u);
    }
    return product;
}

void main()
{
    uint token = row_index();
    for (uint k = 0u; k < TOP_K; k++) {
        uint pair = token * TOP_K + k, place = 0u;
        bool inside = token < rows;
        if (inside)
            place = PLACED ? uint(places[pair]) - first_source : pair;
        inside = inside && (!PLACED || place < sources);
        float product = row_sum(inside ? pair_gradient(token, place, weights[pair]) : 0.0);
        if (inside && row_lane() == 0u && (flags & WRITE_W) != 0u)
            d_weights[pair] = (flags & ADD_W) != 0u ? d_weights[pair] + product : product;
    }
}
