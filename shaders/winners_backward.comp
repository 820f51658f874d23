#version 450
#extension GL_GOOGLE_include_directive : require
// Gradients of a chunk of a competition's expert outputs y, a row per (expert, token) from first_expert on: what comes
// through the affinity (specification 3.5), and to the winners what comes to the winner's row. LANES invocations per
// row.
#define PUSH_FIELDS uint experts, tokens, first_expert;
#include "rows.glsl"

layout(constant_id = 3) const uint KIND = 0; // enum nn_affinity_kind
layout(constant_id = 4) const uint TOP_K = 2;

#include "affinity.glsl"

UNIT_MAP(affinity_slopes, affinity_slope)

VALUES_IN(0, y)
layout(std430, binding = 1) readonly buffer Affinities { float s[]; };           // [T, E]
layout(std430, binding = 2) readonly buffer AffinitiesGradient { float d_s[]; }; // [T, E]
layout(std430, binding = 3) readonly buffer Indices { int indices[]; };          // [T, K]
VALUES_IN(4, d_winners)                                                          // [T, K, C]
VALUES_OUT(5, dy)

void main()
{
    uint row = row_index();
    if (row >= rows)
        return;
    uint token = row % tokens, expert = first_expert + row / tokens, rank = TOP_K;
    for (uint k = 0u; k < TOP_K; k++)
        if (uint(indices[token * TOP_K + k]) == expert)
            rank = k;
    uint winner = (token * TOP_K + rank) * units;
    uint at = token * experts + expert;
    float scale = KIND != L2_NORM ? d_s[at] / float(units * WIDTH) : s[at] > 0.0 ? d_s[at] / s[at] : 0.0;
    for (uint u = row_lane(); u < units; u += LANES) {
        Unit v = load_y(row * units + u);
        Unit g = scale * (KIND == L2_NORM ? v : affinity_slopes(v));
        if (rank < TOP_K)
            g += load_d_winners(winner + u);
        store_dy(row * units + u, g, false);
    }
}
