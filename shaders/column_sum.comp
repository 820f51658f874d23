#version 450
#extension GL_GOOGLE_include_directive : require

// Sums of the columns of x [in_rows, units] over chunks of `chunk_rows` rows, in order: one row of sums per chunk. Where one
// chunk is left, columns from `split` on go to the second output, and the sums may add to what is there.
// One invocation per chunk and unit.
#define PUSH_FIELDS uint in_rows, chunk_rows, split, flags;
#include "rows.glsl"

const uint ADD_A = 1u;
const uint ADD_B = 2u;

VALUES_IN(0, x)
VALUES_OUT(1, a)
VALUES_OUT(2, b)

void main()
{
    uint i = flat_index();
    if (i >= rows * units)
        return;
    uint chunk = i / units;
    uint unit = i % units;
    uint begin = chunk * chunk_rows;
    uint count = min(chunk_rows, in_rows - (first_row + chunk) * chunk_rows);
    vec4 sum = vec4(0.0);
    for (uint r = 0; r < count; r++)
        sum += load_x((begin + r) * units + unit);
    if (unit < split)
        store_a(chunk * split + unit, sum, (flags & ADD_A) != 0u);
    else
        store_b(chunk * (units - split) + unit - split, sum, (flags & ADD_B) != 0u);
}
