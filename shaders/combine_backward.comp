#version 450
#extension GL_GOOGLE_include_directive : require
// Backward of combine.comp for the same window of ys: dw[t, k] = dy[t] . ys[row], dys[row] = w dy[t]. LANES invocations
// per token.
#define PUSH_FIELDS uint first_source, sources;
#include "rows.glsl"

layout(constant_id = 3) const uint TOP_K = 2;
layout(constant_id = 4) const bool PLACED = true;
layout(constant_id = 5) const uint FLAGS = 0;

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

const uint LEFT_OUT = 0xffffffffu; // a row beyond the window

uint place[TOP_K];
float weight[TOP_K], product[TOP_K];

void find_pairs(uint token)
{
    for (uint k = 0u; k < TOP_K; k++) {
        uint pair = token * TOP_K + k;
        place[k] = PLACED ? uint(places[pair]) - first_source : pair;
        weight[k] = weights[pair];
        if (PLACED && place[k] >= sources)
            place[k] = LEFT_OUT;
    }
}

void add_unit(uint token, uint u)
{
    Unit g = load_dy(token * units + u);
    for (uint k = 0u; k < TOP_K; k++) {
        if (place[k] == LEFT_OUT)
            continue;
        if ((FLAGS & WRITE_W) != 0u)
            product[k] += unit_sum(mul(g, load_ys(place[k] * units + u)));
        if ((FLAGS & WRITE_YS) != 0u)
            add_dys(place[k] * units + u, weight[k] * g, (FLAGS & ADD_YS) != 0u);
    }
}

void main()
{
    uint token = row_index();
    bool inside = token < rows;
    if (inside)
        find_pairs(token);
    for (uint k = 0u; k < TOP_K; k++)
        product[k] = 0.0;
    uint u = row_lane();
    if (inside && u < units)
        do
            add_unit(token, u);
        while ((u += LANES) < units);
    if ((FLAGS & WRITE_W) == 0u)
        return;
    for (uint k = 0u; k < TOP_K; k++) {
        uint pair = token * TOP_K + k;
        float sum = row_sum(product[k]);
        if (inside && row_lane() == 0u && place[k] != LEFT_OUT)
            d_weights[pair] = (FLAGS & ADD_W) != 0u ? d_weights[pair] + sum : sum;
    }
}
