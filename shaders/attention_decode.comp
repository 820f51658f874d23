#version 450
#extension GL_GOOGLE_include_directive : require
// Attention of a few new tokens over a cache. With hardly any query rows to share out, the lanes share out the keys:
// each runs its own online softmax over every LANES-th key, and the lanes' results are merged at the end. Groups:
// queries, heads * CHUNKS.
#include "attention.glsl"

layout(binding = 0) uniform usamplerBuffer queries; // vec4 bits, addressed by push.q_*
layout(binding = 1) uniform usamplerBuffer keys;
layout(binding = 2) uniform usamplerBuffer values;
layout(binding = 3, std430) writeonly buffer Output { vec4 y[]; }; // [queries, heads, WIDTH]

shared vec4 lane_o[LANES * CHUNK];
shared float lane_peak[LANES], lane_sum[LANES];

float score(uint i, uint j, uint head)
{
    float s = 0;
    for (uint c = 0; c < WIDTH; c++) {
        uvec4 q = texelFetch(queries, int(i * push.q_row + push.q_first + head * WIDTH + c));
        uvec4 k = texelFetch(keys, int(j * push.k_row + push.k_first + head / push.group * WIDTH + c));
        s += dot(uintBitsToFloat(q), uintBitsToFloat(k));
    }
    return s * (push.scale * LOG2E);
}

void main()
{
    uint lane = gl_LocalInvocationID.x, i = gl_WorkGroupID.x;
    uint head = gl_WorkGroupID.y / CHUNKS, chunk = gl_WorkGroupID.y % CHUNKS;
    uint position = push.past + i;
    uint end = CAUSAL ? max(position + 1, OPEN && position < push.open ? push.open : 0) : push.keys;

    vec4 o[CHUNK];
    float peak = -1e30, sum = 0;
    [[unroll]] for (uint c = 0; c < CHUNK; c++)
        o[c] = vec4(0);
    for (uint j = lane; j < min(end, push.keys); j += LANES) {
        float s = score(i, j, head), top = max(peak, s);
        float shrink = exp2(peak - top), p = exp2(s - top);
        peak = top;
        sum = sum * shrink + p;
        uint at = j * push.v_row + push.v_first + head / push.group * WIDTH + chunk * CHUNK;
        [[unroll]] for (uint c = 0; c < CHUNK; c++)
            o[c] = o[c] * shrink + p * uintBitsToFloat(texelFetch(values, int(at + c)));
    }

    lane_peak[lane] = peak;
    barrier();
    float top = peak;
    for (uint n = 0; n < LANES; n++)
        top = max(top, lane_peak[n]);
    float shrink = exp2(peak - top);
    lane_sum[lane] = sum * shrink;
    [[unroll]] for (uint c = 0; c < CHUNK; c++)
        lane_o[lane * CHUNK + c] = o[c] * shrink;
    barrier();
    float total = 0;
    for (uint n = 0; n < LANES; n++)
        total += lane_sum[n];
    for (uint c = lane; c < CHUNK; c += LANES) {
        vec4 merged = vec4(0);
        for (uint n = 0; n < LANES; n++)
            merged += lane_o[n * CHUNK + c];
        y[(i * push.heads + head) * WIDTH + chunk * CHUNK + c] = merged / total;
    }
}
