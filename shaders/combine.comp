#version 450
#extension GL_GOOGLE_include_directive : require
// y[t] = sum over k of w[t, k] ys[row of (t, k)]; without WEIGHTED all w are 1. The row is places[t, k], or with DENSE
// that of token t in the block of expert places[t, k] of ys [E, T, C]. One invocation per unit.
#define PUSH_FIELDS uint tokens, accumulate;
#include "rows.glsl"

layout(constant_id = 3) const uint TOP_K = 2;
layout(constant_id = 4) const bool WEIGHTED = true;
layout(constant_id = 5) const bool DENSE = false;

layout(std430, binding = 0) readonly buffer Places { int places[]; };
layout(std430, binding = 1) readonly buffer Weights { float weights[]; };
VALUES_IN(2, ys)
VALUES_OUT(3, y)

void main()
{
    uint i = flat_index();
    if (i >= rows * units)
        return;
    uint token = i / units;
    vec4 sum = vec4(0.0);
    for (uint k = 0u; k < TOP_K; k++) {
        uint pair = token * TOP_K + k;
        uint place = uint(places[pair]);
        if (DENSE)
            place = place * tokens + first_row + token;
        sum += (WEIGHTED ? weights[pair] : 1.0) * load_ys(place * units + i % units);
    }
    store_y(i, sum, accumulate != 0u);
}
