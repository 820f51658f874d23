// Writes the record of a tile: sums over its tokens, in order. Needs tile[] = the balance probability in its first
// TOKENS rows, chosen[], token_sums[], and a buffer partial[].
void write_partial(Place place)
{
    for (uint e = gl_LocalInvocationID.x; e < EXPERTS; e += gl_WorkGroupSize.x) {
        float probability = 0.0;
        uint first = 0u, all = 0u;
        for (uint t = 0u; t < place.count; t++) {
            probability += tile[t * STRIDE + e];
            first += uint(chosen[t * TOP_K] == e);
            for (uint k = 0u; k < TOP_K; k++)
                all += uint(chosen[t * TOP_K + k] == e);
        }
        partial[place.record + e] = float(first);
        partial[place.record + EXPERTS + e] = probability;
        partial[place.record + 2u * EXPERTS + e] = float(all);
    }
    if (gl_LocalInvocationID.x < 4u) {
        float sum = 0.0;
        for (uint t = 0u; t < place.count; t++)
            sum += token_sums[t][gl_LocalInvocationID.x];
        partial[place.record + 3u * EXPERTS + gl_LocalInvocationID.x] = sum;
    }
}
