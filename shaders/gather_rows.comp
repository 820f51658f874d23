#version 450
#extension GL_GOOGLE_include_directive : require

// dst[i] = src[index[i]]. Only rows first_source .. first_source + sources - 1 of the source are bound; rows of dst
// that come from elsewhere are left alone. LANES invocations per row.
#define PUSH_FIELDS uint first_source, sources;
#include "rows.glsl"

layout(constant_id = 3) const uint FLAGS = 0;
const uint ACCUMULATE = 1u;
const uint ZERO_MISSING = 2u; // rows with a negative index become 0
const uint COMPLEMENT = 4u;   // the index counts downwards from -1; others are left alone

layout(std430, binding = 0) readonly buffer Index { int index[]; };
VALUES_IN(1, src)
VALUES_SUM(2, 3, dst)

void main()
{
    uint row = row_index();
    if (row >= rows)
        return;
    int from = index[row];
    if ((FLAGS & COMPLEMENT) != 0u)
        from = -1 - from;
    uint source = uint(from) - first_source; // wraps below first_source
    bool missing = from < 0;
    if (missing ? (FLAGS & ZERO_MISSING) == 0u : source >= sources)
        return;
    uint u = row_lane();
    if (u < units)
        do
            add_dst(row * units + u, missing ? unit_of(0.0) : load_src(source * units + u), (FLAGS & ACCUMULATE) != 0u);
        while ((u += LANES) < units);
}
