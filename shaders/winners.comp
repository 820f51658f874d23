#version 450
#extension GL_GOOGLE_include_directive : require
// One chunk of a competition (specification 2.3): the affinities of experts first_expert .. first_expert + count - 1
// from their outputs y [count, T, C], or from sums of their terms, and the best TOP_K experts so far with their
// outputs, best first, lowest index first among equals. Chunks come in ascending order; the first one finds nothing.
// LANES invocations per token.
#define PUSH_FIELDS uint experts, first_expert, count, expert_rows;
#include "rows.glsl"

layout(constant_id = 3) const uint KIND = 0; // enum nn_affinity_kind
layout(constant_id = 4) const uint TOP_K = 2;
layout(constant_id = 5) const bool SUMMED = false; // the product that made y has summed the terms of each four columns

#include "affinity.glsl"

DEFINE_AFFINITY_SUM(Unit, WIDTH, COLUMN)

VALUES_IN(0, y)                                               // expert_rows rows of each expert, from first_row
layout(std430, binding = 1) buffer Affinities { float s[]; }; // [T, E]
layout(std430, binding = 2) buffer Indices { int indices[]; };   // [T, K]
VALUES_OUT(3, winners)                                        // [T, K, C]
VALUES_IN(4, old_winners)                                     // the same memory
VALUES_IN(5, sums)                                            // SUMMED: rows like y's, of C / 4

// The experts chosen so far, by rank: their affinities, and where their outputs are: the old rank for those of earlier
// chunks, TOP_K + expert - first_expert for those of this one.
float best[TOP_K];
uint source[TOP_K];

void rank(float score, uint from, uint known)
{
    uint k = min(known, TOP_K);
    if (k == TOP_K && !(score > best[TOP_K - 1u]))
        return;
    k = min(k, TOP_K - 1u);
    for (; k > 0u && score > best[k - 1u]; k--) {
        best[k] = best[k - 1u];
        source[k] = source[k - 1u];
    }
    best[k] = score;
    source[k] = from;
}

float affinity(uint row, bool inside)
{
    uint count = SUMMED ? units * WIDTH / 4u : units;
    float sum = 0.0;
    for (uint u = row_lane(); u < (inside ? count : 0u); u += LANES)
        sum += SUMMED ? sums_at(row * count + u) : affinity_sum(load_y(row * units + u));
    sum = row_sum(sum);
    return KIND == L2_NORM ? sqrt(sum) : sum / float(units * WIDTH);
}

void main()
{
    uint token = row_index(), first_y = expert_rows > rows ? first_row : 0u;
    bool inside = token < rows;
    uint known = min(first_expert, TOP_K);
    for (uint k = 0u; k < (inside ? known : 0u); k++) {
        best[k] = s[token * experts + uint(indices[token * TOP_K + k])];
        source[k] = k;
    }
    groupMemoryBarrier(); // read before the row's first lane writes, behind the barriers of row_sum()
    for (uint e = 0u; e < count; e++) {
        float score = affinity(e * expert_rows + first_y + token, inside);
        if (inside && row_lane() == 0u)
            s[token * experts + first_expert + e] = score;
        rank(score, TOP_K + e, first_expert + e);
    }
    if (!inside)
        return;
    // From the last rank: what is moved down has not been overwritten yet.
    for (uint k = min(first_expert + count, TOP_K); k-- > 0u;) {
        bool fresh = source[k] >= TOP_K;
        if (!fresh && source[k] == k)
            continue;
        uint from = fresh ? (source[k] - TOP_K) * expert_rows + first_y + token : token * TOP_K + source[k];
        for (uint u = row_lane(); u < units; u += LANES)
            store_winners((token * TOP_K + k) * units + u,
                          fresh ? load_y(from * units + u) : load_old_winners(from * units + u), false);
        if (row_lane() == 0u)
            indices[token * TOP_K + k] =
                fresh ? int(first_expert + source[k] - TOP_K) : indices[token * TOP_K + source[k]];
    }
}
