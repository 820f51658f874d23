#version 450
#extension GL_GOOGLE_include_directive : require
// Router mode (specification 2.2) for a tile of tokens: p = softmax(z), the TOP_K largest p, their weights v / sum v,
// and the tile's share of the losses.
#define TILE_ROWS TOKENS
#include "routing.glsl"

layout(std430, binding = 0) readonly buffer Logits { float z[]; };          // [T, E]
layout(std430, binding = 1) writeonly buffer Probabilities { float p[]; };  // [T, E]
layout(std430, binding = 2) writeonly buffer Indices { int indices[]; };    // [T, K]
layout(std430, binding = 3) writeonly buffer Weights { float weights[]; };  // [T, K]
layout(std430, binding = 4) writeonly buffer Partial { float partial[]; };

#include "routing_partial.glsl"

void route_token(uint token, uint at)
{
    uint row = token * STRIDE;
    float lse = softmax_row(row);
    for (uint e = 0u; e < EXPERTS; e++)
        p[at * EXPERTS + e] = tile[row + e];
    select_row(row, token);
    float sum = 0.0;
    for (uint k = 0u; k < TOP_K; k++)
        sum += tile[row + chosen[token * TOP_K + k]];
    for (uint k = 0u; k < TOP_K; k++) {
        uint e = chosen[token * TOP_K + k];
        indices[at * TOP_K + k] = int(e);
        weights[at * TOP_K + k] = tile[row + e] / sum;
    }
    token_sums[token] = vec4(lse * lse, entropy_of_row(row), 0.0, 0.0);
}

void main()
{
    Place place = place_of_group();
    uint id = gl_LocalInvocationID.x;
    for (uint i = id; i < place.count * EXPERTS; i += gl_WorkGroupSize.x)
        tile[tile_place(i)] = z[place.first * EXPERTS + i];
    barrier();
    if (id < place.count)
        route_token(id, place.first + id);
    barrier();
    write_partial(place);
}
