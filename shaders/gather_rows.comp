#version 450
#extension GL_GOOGLE_include_directive : require

// dst[i] = src[index[i]]. Only rows first_source .. first_source + sources - 1 of the source are bound; rows of dst that come
// from elsewhere are left alone. One invocation per unit.
#define PUSH_FIELDS uint first_source, sources, flags;
#include "rows.glsl"

const uint ACCUMULATE = 1u;
const uint ZERO_MISSING = 2u; // rows with a negative index become 0
const uint COMPLEMENT = 4u;   // the index counts downwards from -1; others are left alone

layout(std430, binding = 0) readonly buffer Index { int index[]; };
VALUES_IN(1, src)
VALUES_OUT(2, dst)

void main()
{
    uint i = flat_index();
    if (i >= rows * units)
        return;
    int from = index[i / units];
    if ((flags & COMPLEMENT) != 0u)
        from = -1 - from;
    if (from < 0) {
        if ((flags & ZERO_MISSING) != 0u)
            store_dst(i, vec4(0.0), false);
        return;
    }
    uint source = uint(from) - first_source; // wraps below first_source
    if (source < sources)
        store_dst(i, load_src(source * units + i % units), (flags & ACCUMULATE) != 0u);
}
