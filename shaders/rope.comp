#version 450
#extension GL_GOOGLE_include_directive : require

// Rotates the first `heads` heads of each row by position times frequency (`direction` -1: back, for gradients) and
// copies the rest. A pair of columns is (2i, 2i + 1) where INTERLEAVED, else (i, i + head_units / 2). One invocation
// per row and unit of a head: all heads share its angles.
#define PUSH_FIELDS uint heads, head_units; float direction; uint accumulate;
#include "rows.glsl"
#include "turn.glsl"

layout(constant_id = 3) const bool INTERLEAVED = false;

VALUES_IN(0, x)
layout(std430, binding = 1) readonly buffer Positions { int positions[]; };
// Turns per position of each pair as a 64-bit binary fraction: high word, low word.
layout(std430, binding = 2) readonly buffer Frequencies { uvec2 frequencies[]; };
VALUES_SUM(3, 4, y)

// Cosine in .x, sine in .y of the angle of `pair` at `position`. Whole turns fall off the top of the product.
vec2 rotation(uint pair, int position)
{
    uvec2 f = frequencies[pair];
    uint high;
    uint low;
    umulExtended(uint(abs(position)), f.y, high, low);
    vec2 r = turn_cos_sin(uint(abs(position)) * f.x + high);
    return vec2(r.x, position < 0 ? -r.y : r.y);
}

void main()
{
    uint i = flat_index();
    if (i >= rows * head_units)
        return;
    uint row = i / head_units;
    uint unit = i % head_units;
    int position = positions[row];
    uint begin = row * units;

    // Of each column of this unit: its pair's cosine and sine, the sine with the sign of the partner's contribution.
    Unit cosine;
    Unit sine;
    uint half_units = head_units / 2u;
    bool lower = INTERLEAVED ? (unit & 1u) == 0u : unit < half_units;
    uint partner = INTERLEAVED ? unit ^ 1u : lower ? unit + half_units : unit - half_units;
    if (INTERLEAVED && WIDTH > 1u) {
        for (uint c = 0; c < WIDTH; c += 2) {
            vec2 r = rotation((unit * WIDTH + c) / 2u, position);
            COLUMN(cosine, c) = r.x;
            COLUMN(cosine, c + 1u) = r.x;
            COLUMN(sine, c) = -r.y;
            COLUMN(sine, c + 1u) = r.y;
        }
    } else {
        uint pair = INTERLEAVED ? unit / 2u : min(unit, partner) * WIDTH;
        for (uint c = 0; c < WIDTH; c++) {
            vec2 r = rotation(pair + c, position);
            COLUMN(cosine, c) = r.x;
            COLUMN(sine, c) = lower ? -r.y : r.y;
        }
    }
    sine *= direction;

    uint rotated = heads * head_units;
    for (uint head = 0; head < rotated; head += head_units) {
        Unit v = load_x(begin + head + unit);
        Unit other = INTERLEAVED && WIDTH > 1u ? unit_swap(v) : load_x(begin + head + partner);
        add_y(begin + head + unit, mul(v, cosine) + mul(other, sine), accumulate != 0u);
    }
    for (uint u = rotated + unit; u < units; u += head_units)
        add_y(begin + u, load_x(begin + u), accumulate != 0u);
}
