#version 450
#extension GL_GOOGLE_include_directive : require

// Adds to each used row of the table the gradients of its positions, in order. `index` is nn_embedding_index()'s for n
// positions. Only rows first_entry .. first_entry + entries - 1 of the table are bound. One invocation per distinct id
// and unit.
#define PUSH_FIELDS uint positions, first_entry, entries;
#include "rows.glsl"

layout(std430, binding = 0) readonly buffer Index { int index[]; };
VALUES_IN(1, dy)
VALUES_SUM(2, 3, dtable)

const uint BLOCK = 4096u; // one CPU driver ends any loop after 65535 turns, so long sums are two nested loops

void main()
{
    uint i = flat_index();
    if (i >= rows * units)
        return;
    uint distinct = first_row + i / units;
    uint unit = i % units;
    int id = index[2u * positions + 1u + distinct];
    uint entry = uint(id) - first_entry;
    if (id < 0 || entry >= entries)
        return;
    uint end = uint(index[positions + distinct + 1u]);
    Unit sum = unit_of(0.0);
    uint p = uint(index[positions + distinct]);
    if (p < end)
        do {
            uint block_end = min(p + BLOCK, end);
            do
                sum += load_dy(uint(index[p]) * units + unit);
            while (++p < block_end);
        } while (p < end);
    add_dtable(entry * units + unit, sum, true);
}
