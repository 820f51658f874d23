#version 450
#extension GL_GOOGLE_include_directive : require
// Backward of combine.comp, a row per pair (t, k): dw = dy[t] . ys[row], dys[row] = w dy[t]. LANES invocations per row.
#define PUSH_FIELDS uint tokens, flags;
#include "rows.glsl"

layout(constant_id = 3) const uint TOP_K = 2;
layout(constant_id = 4) const bool DENSE = false;

const uint WRITE_YS = 1u;
const uint ADD_YS = 2u;
const uint WRITE_W = 4u;
const uint ADD_W = 8u;

layout(std430, binding = 0) readonly buffer Places { int places[]; };
layout(std430, binding = 1) readonly buffer Weights { float weights[]; };
VALUES_IN(2, dy)
VALUES_IN(3, ys)
VALUES_OUT(4, dys)
layout(std430, binding = 5) buffer WeightsGradient { float d_weights[]; };

void main()
{
    uint pair = row_index();
    bool inside = pair < rows;
    uint token = (first_row + pair) / TOP_K;
    uint place = inside ? uint(places[pair]) : 0u;
    if (DENSE)
        place = place * tokens + token;
    float weight = inside ? weights[pair] : 0.0, product = 0.0;
    for (uint u = row_lane(); u < (inside ? units : 0u); u += LANES) {
        vec4 g = load_dy(token * units + u);
        if ((flags & WRITE_W) != 0u)
            product += unit_sum(g * load_ys(place * units + u));
        if ((flags & WRITE_YS) != 0u)
            store_dys(place * units + u, weight * g, (flags & ADD_YS) != 0u);
    }
    product = row_sum(product);
    if (inside && row_lane() == 0u && (flags & WRITE_W) != 0u)
        d_weights[pair] = (flags & ADD_W) != 0u ? d_weights[pair] + product : product;
}
