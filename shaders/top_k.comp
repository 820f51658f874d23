#version 450
#extension GL_GOOGLE_include_directive : require

// The k largest of each row, in descending order, the lowest column first among equals. Each pick is the largest of
// what comes after the previous pick in that order, so nothing has to be marked as taken. LANES invocations per row.
#define PUSH_FIELDS uint k;
#include "rows.glsl"
#include "largest.glsl"

layout(std430, binding = 0) readonly buffer X { float x[]; };
layout(std430, binding = 1) writeonly buffer Values { float values[]; };
layout(std430, binding = 2) writeonly buffer Indices { int indices[]; };

void main()
{
    uint row = row_index();
    uint begin = row * units;
    uint end = row < rows ? units : 0u;
    Largest previous = Largest(0.0, NO_COLUMN);
    for (uint pick = 0; pick < k; pick++) {
        Largest best = Largest(0.0, NO_COLUMN);
        for (uint u = row_lane(); u < end; u += LANES) {
            float v = x[begin + u];
            bool left = previous.column == NO_COLUMN || v < previous.value ||
                        (v == previous.value && u > previous.column);
            if (left && (best.column == NO_COLUMN || v > best.value))
                best = Largest(v, u);
        }
        best = row_largest(best);
        // Rows with NaN run out of candidates; an index must be a column all the same.
        if (best.column == NO_COLUMN)
            best.column = 0u;
        if (row < rows && row_lane() == 0u) {
            values[row * k + pick] = best.value;
            indices[row * k + pick] = int(best.column);
        }
        previous = best;
    }
}
