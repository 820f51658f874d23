#version 450
#extension GL_GOOGLE_include_directive : require

// Per row: the largest column, log sum exp and -log softmax[label]; both 0 where the label is no column (ignored). x
// has the columns from first_column on, of `columns` in all: a long row comes in several dispatches, which hand on what
// they have seen. LANES invocations per row.
#define PUSH_FIELDS uint first_column, columns;
#include "rows.glsl"
#include "largest.glsl"
#include "math.glsl"

VALUES_IN(0, x)
layout(std430, binding = 1) readonly buffer Labels { int labels[]; };
layout(std430, binding = 2) writeonly buffer Losses { float losses[]; };
layout(std430, binding = 3) writeonly buffer Best { int best[]; };
layout(std430, binding = 4) writeonly buffer LogSums { float log_sums[]; };
layout(std430, binding = 5) buffer States { uvec4 states[]; }; // maximum, its column, sum of exponentials, at the label

UNIT_MAP(exponentials, accurate_exp)

Largest unit_largest(Unit v, uint u)
{
    Largest l = Largest(COLUMN(v, 0u), u * WIDTH);
    for (uint c = 1; c < WIDTH; c++)
        if (COLUMN(v, c) > l.value)
            l = Largest(COLUMN(v, c), u * WIDTH + c);
    return l;
}

void main()
{
    uint row = row_index();
    uint begin = row * units;
    uint end = row < rows ? units : 0u;
    Largest top = Largest(LOWEST, NO_COLUMN);
    uint u = row_lane();
    if (u < end)
        do {
            Largest next = unit_largest(load_x(begin + u), u);
            if (next.value > top.value || top.column == NO_COLUMN)
                top = next;
        } while ((u += LANES) < end);
    top = row_largest(top);
    top.column += first_column;
    Largest before = Largest(LOWEST, NO_COLUMN);
    float sum_before = 0.0, at_label = 0.0;
    if (first_column > 0u && row < rows) {
        uvec4 state = states[row];
        before = Largest(uintBitsToFloat(state.x), state.y);
        sum_before = uintBitsToFloat(state.z);
        at_label = uintBitsToFloat(state.w);
        top = larger(before, top);
    }
    groupMemoryBarrier(); // read before the row's first lane writes, behind the barriers of row_sum()
    uint label = row < rows ? uint(labels[row]) : 0u;
    bool counts = label < columns; // a negative label is a huge one
    float sum = 0.0;
    u = row_lane();
    if (counts && u < end)
        do
            sum += unit_sum(exponentials(load_x(begin + u) - top.value));
        while ((u += LANES) < end);
    sum = row_sum(sum);
    if (row >= rows || row_lane() != 0u)
        return;
    if (first_column > 0u)
        sum += sum_before * accurate_exp(before.value - top.value);
    uint place = label - first_column; // wraps below first_column
    if (place < units * WIDTH)
        at_label = x_at(begin * WIDTH + place);
    if (first_column + units * WIDTH < columns) {
        states[row] = uvec4(floatBitsToUint(top.value), top.column, floatBitsToUint(sum), floatBitsToUint(at_label));
        return;
    }
    // What is no number stays none: accurate_log() would make one of it.
    float log_sum = !counts ? 0.0 : finite(sum) ? accurate_log(sum) : sum;
    losses[row] = counts ? log_sum - (at_label - top.value) : 0.0;
    log_sums[row] = counts ? log_sum + top.value : 0.0;
    best[row] = int(top.column);
}
