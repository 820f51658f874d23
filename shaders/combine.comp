#version 450
#extension GL_GOOGLE_include_directive : require
// y[t] = sum over k of w[t, k] ys[row of (t, k)]; without WEIGHTED all w are 1. The row is places[t, k], or without
// PLACED that of the pair itself. Rows of ys beyond first_source .. first_source + sources - 1 are not bound and count
// as 0. LANES invocations per token.
#define PUSH_FIELDS uint first_source, sources;
#include "rows.glsl"

layout(constant_id = 3) const uint TOP_K = 2;
layout(constant_id = 4) const bool WEIGHTED = true;
layout(constant_id = 5) const bool PLACED = true;
layout(constant_id = 6) const bool ACCUMULATE = false;

layout(std430, binding = 0) readonly buffer Places { int places[]; };
layout(std430, binding = 1) readonly buffer Weights { float weights[]; };
VALUES_IN(2, ys)
VALUES_SUM(3, 4, y)

void main()
{
    uint token = row_index();
    if (token >= rows)
        return;
    uint place[TOP_K];
    float weight[TOP_K];
    for (uint k = 0u; k < TOP_K; k++) {
        uint pair = token * TOP_K + k;
        place[k] = PLACED ? uint(places[pair]) - first_source : pair;
        weight[k] = WEIGHTED ? weights[pair] : 1.0;
    }
    uint u = row_lane();
    if (u < units)
        do {
            Unit sum = unit_of(0.0);
            for (uint k = 0u; k < TOP_K; k++)
                if (!PLACED || place[k] < sources)
                    sum += weight[k] * load_ys(place[k] * units + u);
            add_y(token * units + u, sum, ACCUMULATE);
        } while ((u += LANES) < units);
}
