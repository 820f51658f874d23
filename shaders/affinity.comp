#version 450
#extension GL_GOOGLE_include_directive : require
// s [T, E] from expert outputs y [E, T, C]; a row per (expert, token), LANES invocations each.
#define PUSH_FIELDS uint tokens, experts;
#include "rows.glsl"
#include "affinity.glsl"

VALUES_IN(0, y)
layout(std430, binding = 1) writeonly buffer Affinities { float s[]; };

void main()
{
    uint row = row_index();
    float sum = 0.0;
    for (uint u = row_lane(); u < (row < rows ? units : 0u); u += LANES) {
        vec4 v = load_y(row * units + u);
        for (uint c = 0u; c < WIDTH; c++)
            sum += affinity_term(v[c]);
    }
    sum = row_sum(sum);
    if (row < rows && row_lane() == 0u) {
        uint at = first_row + row;
        s[at % tokens * experts + at / tokens] = KIND == L2_NORM ? sqrt(sum) : sum / float(units * WIDTH);
    }
}
