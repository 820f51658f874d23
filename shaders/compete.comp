#version 450
#extension GL_GOOGLE_include_directive : require
// Competition mode (specification 2.3) for a tile of tokens, from gate logits z and affinities s: q = softmax(s), the
// TOP_K largest s, their weights v / sum v with v = s or sigmoid(s), and the tile's share of the losses.
#define TILE_ROWS (2u * TOKENS)
#include "routing.glsl"
#include "activation.glsl"

layout(constant_id = 4) const bool NORM_SIGMOID = false;

layout(std430, binding = 0) readonly buffer Logits { float z[]; };          // [T, E]
layout(std430, binding = 1) readonly buffer Affinities { float s[]; };      // [T, E]
layout(std430, binding = 2) writeonly buffer Target { float q[]; };         // [T, E]
layout(std430, binding = 3) writeonly buffer Indices { int indices[]; };    // [T, K]
layout(std430, binding = 4) writeonly buffer Weights { float weights[]; };  // [T, K]
layout(std430, binding = 5) writeonly buffer Partial { float partial[]; };

#include "routing_partial.glsl"

const uint GATE = TOKENS * STRIDE; // the gate's rows lie behind the affinities' in tile[]

float rated(float score)
{
    return NORM_SIGMOID ? sigmoid(score) : score;
}

void mix_winners(uint token, uint at)
{
    uint row = token * STRIDE;
    float sum = 0.0;
    for (uint k = 0u; k < TOP_K; k++)
        sum += rated(tile[row + chosen[token * TOP_K + k]]);
    for (uint k = 0u; k < TOP_K; k++) {
        uint e = chosen[token * TOP_K + k];
        indices[at * TOP_K + k] = int(e);
        weights[at * TOP_K + k] = rated(tile[row + e]) / sum;
    }
}

float squared_difference(uint place)
{
    float difference = tile[GATE + place] - tile[place];
    return difference * difference;
}

void compete_token(uint token, uint at)
{
    uint row = token * STRIDE;
    select_row(row, token);
    mix_winners(token, at); // before the softmax replaces the affinities
    softmax_row(row);
    softmax_row(GATE + row);
    float all = 0.0, winners = 0.0;
    for (uint e = 0u; e < EXPERTS; e++) {
        q[at * EXPERTS + e] = tile[row + e];
        all += squared_difference(row + e);
    }
    for (uint k = 0u; k < TOP_K; k++)
        winners += squared_difference(row + chosen[token * TOP_K + k]);
    token_sums[token] = vec4(0.0, entropy_of_row(GATE + row), all, winners);
}

void main()
{
    Place place = place_of_group();
    uint id = gl_LocalInvocationID.x;
    for (uint i = id; i < place.count * EXPERTS; i += gl_WorkGroupSize.x) {
        tile[tile_place(i)] = s[place.first * EXPERTS + i];
        tile[GATE + tile_place(i)] = z[place.first * EXPERTS + i];
    }
    barrier();
    if (id < place.count)
        compete_token(id, place.first + id);
    barrier();
    write_partial(place);
}
