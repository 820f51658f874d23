#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require

// With n = (x - mean) scale and g = dy gain: dx = scale (g - mean(g) - n mean(g n)); without LAYER the mean(g) term is
// absent. Also partial sums over `chunk_rows` rows, in order, of dy n (the gain's gradient) and, with LAYER, of dy (the
// bias's); bias_sum.comp adds the chunks. LANES invocations take a chunk row by row and hold HELD units of each.
#define PUSH_FIELDS uint in_rows, chunk_rows;
#include "rows.glsl"

layout(constant_id = 3) const bool LAYER = false;
layout(constant_id = 4) const uint HELD = 1;
layout(constant_id = 5) const uint FLAGS = 0;

const uint WANT_X = 1u;
const uint ADD_X = 2u;

VALUES_IN(0, x)
VALUES_IN(1, gain)
VALUES_IN(3, dy)
VALUES_SUM(4, 5, dx)
VALUES_OUT(6, gain_sum)
VALUES_OUT(7, bias_sum)

// Mean and reciprocal deviation of a row.
#ifdef WIDE
layout(binding = 2) uniform usamplerBuffer stats;
vec2 row_stat(uint row)
{
    vec4 two = uintBitsToFloat(texelFetch(stats, int(row / 2u)));
    return row % 2u == 0u ? two.xy : two.zw;
}
#else
layout(std430, binding = 2) readonly buffer Stats { vec2 stats[]; };
vec2 row_stat(uint row)
{
    return stats[row];
}
#endif

void main()
{
    uint chunk = row_index();
    uint first = chunk * chunk_rows;
    uint count = chunk < rows ? min(chunk_rows, in_rows - (first_row + chunk) * chunk_rows) : 0u;
    float columns = float(units * WIDTH);
    Unit gains[HELD], gain_sums[HELD], bias_sums[HELD], g[HELD], n[HELD];
    [[unroll]] for (uint k = 0u; k < HELD; k++) {
        uint u = row_lane() + k * LANES;
        gains[k] = u < units ? load_gain(u) : unit_of(0.0);
        gain_sums[k] = bias_sums[k] = unit_of(0.0);
    }
    uint r = 0u;
    do {
        uint begin = (first + r) * units;
        uint end = r < count ? units : 0u;
        vec2 stat = r < count ? row_stat(first + r) : vec2(0.0);
        float sum = 0.0;
        float product = 0.0;
        [[unroll]] for (uint k = 0u; k < HELD; k++) {
            uint u = row_lane() + k * LANES;
            g[k] = n[k] = unit_of(0.0);
            if (u < end) {
                Unit d = load_dy(begin + u);
                n[k] = (load_x(begin + u) - stat.x) * stat.y;
                g[k] = mul(d, gains[k]);
                gain_sums[k] += mul(d, n[k]);
                if (LAYER) {
                    bias_sums[k] += d;
                    sum += unit_sum(g[k]);
                }
                product += unit_sum(mul(g[k], n[k]));
            }
        }
        float mean_g = LAYER ? row_sum(sum) / columns : 0.0;
        float mean_gn = row_sum(product) / columns;
        [[unroll]] for (uint k = 0u; k < HELD; k++) {
            uint u = row_lane() + k * LANES;
            if (u < end && (FLAGS & WANT_X) != 0u)
                add_dx(begin + u, (g[k] - mean_g - n[k] * mean_gn) * stat.y, (FLAGS & ADD_X) != 0u);
        }
    } while (++r < chunk_rows);
    [[unroll]] for (uint k = 0u; k < HELD; k++) {
        uint u = row_lane() + k * LANES;
        if (count > 0u && u < units) {
            store_gain_sum(chunk * units + u, gain_sums[k], false);
            if (LAYER)
                store_bias_sum(chunk * units + u, bias_sums[k], false);
        }
    }
}
