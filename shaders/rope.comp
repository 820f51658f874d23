#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require

// Rotates the first `heads` heads of each row by position times frequency (`direction` -1: back, for gradients) and
// copies the rest. A pair of columns is (2i, 2i + 1) where INTERLEAVED, else (i, i + half of the head). All heads share
// an invocation's angles. (CPU drivers run a loop that is tested at its top once more than wanted.)
#define PUSH_FIELDS uint heads, head_units; float direction;
#include "rows.glsl"
#include "turn.glsl"

layout(constant_id = 3) const bool INTERLEAVED = false;
layout(constant_id = 4) const bool ACCUMULATE = false;

VALUES_IN(0, x)
layout(std430, binding = 1) readonly buffer Positions { int positions[]; };
VALUES_SUM(3, 4, y)

// Where the partner of a column lies in the same unit, an invocation turns one unit of every head, else two.
const bool WITHIN = INTERLEAVED && WIDTH > 1u;
const uint PAIRS = WITHIN ? WIDTH / 2u : WIDTH; // per place

// Turns per position of pair `p` at a place, as a 64-bit binary fraction: high word, low word.
#ifdef WIDE
layout(binding = 2) uniform usamplerBuffer frequencies;
uvec2 frequency(uint place, uint p)
{
    uvec4 two = texelFetch(frequencies, int(place * (PAIRS / 2u) + p / 2u));
    return p % 2u == 0u ? two.xy : two.zw;
}
#else
layout(std430, binding = 2) readonly buffer Frequencies { uvec2 frequencies[]; };
uvec2 frequency(uint place, uint p)
{
    return frequencies[place * PAIRS + p];
}
#endif

// Cosine in .x, sine in .y of the angle at `position`. Whole turns fall off the top of the product.
vec2 rotation(uvec2 f, int position)
{
    uint high;
    uint low;
    umulExtended(uint(abs(position)), f.y, high, low);
    vec2 r = turn_cos_sin(uint(abs(position)) * f.x + high);
    return vec2(r.x, position < 0 ? -r.y : r.y);
}

void main()
{
    uint places = WITHIN ? head_units : head_units / 2u;
    uint i = flat_index();
    if (i >= rows * places)
        return;
    uint row = i / places;
    uint place = i % places;
    int position = positions[row];
    uint unit = row * units + (INTERLEAVED && !WITHIN ? 2u * place : place); // of head 0
    uint partner = unit + (INTERLEAVED ? 1u : places);

    Unit cosine;
    Unit sine; // WITHIN: with the sign of the partner's contribution
    [[unroll]] for (uint c = 0; c < WIDTH; c++) {
        vec2 r = rotation(frequency(place, WITHIN ? c / 2u : c), position);
        COLUMN(cosine, c) = r.x;
        COLUMN(sine, c) = WITHIN && c % 2u == 0u ? -r.y : r.y;
    }
    sine *= direction;

    uint head = 0;
    do {
        Unit v = load_x(unit + head);
        if (WITHIN) {
            add_y(unit + head, mul(v, cosine) + mul(unit_swap(v), sine), ACCUMULATE);
        } else {
            Unit other = load_x(partner + head);
            add_y(unit + head, mul(v, cosine) - mul(other, sine), ACCUMULATE);
            add_y(partner + head, mul(other, cosine) + mul(v, sine), ACCUMULATE);
        }
        head += head_units;
    } while (head < heads * head_units);
    uint u = head + place;
    if (u < units)
        do
            add_y(row * units + u, load_x(row * units + u), ACCUMULATE);
        while ((u += places) < units);
}
