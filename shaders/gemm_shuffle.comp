#version 450
// Matrix product for CPU drivers: one workgroup is one subgroup and keeps a tile of RM x COLUMNS SG elements of C in
// registers, without shared memory. On these drivers loads are what costs, and a texel fetch of 16 bytes is the
// cheapest there is: each lane fetches what it needs of its own columns of B; A's RM rows are spread over the lanes and
// handed round by shuffles, from one lane to all. A fetch is a function call, around which all sums go to memory: so a
// turn of the loop fetches all of its terms first and then works on RG fours of sums at a time, which fit a CPU's
// registers.
#extension GL_EXT_control_flow_attributes : require
#extension GL_GOOGLE_include_directive : require
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_shuffle : require
#ifdef WIDE
#extension GL_EXT_shader_explicit_arithmetic_types_int64 : require
#endif

layout(local_size_x = 8, local_size_x_id = 0) in;
layout(constant_id = 0) const uint SG = 8; // the subgroup size, at most RM
layout(constant_id = 1) const uint LAYOUT = 0;
layout(constant_id = 2) const uint RM = 16;    // a multiple of 8
layout(constant_id = 3) const uint RG = 5;
layout(constant_id = 4) const uint TERMS = 8;  // in a turn of the loop, a multiple of 8
layout(constant_id = 5) const bool A_ALIGNED = true; // rows of A, and what lies between its entries, are whole texels
layout(constant_id = 6) const bool B_ALIGNED = true;
layout(constant_id = 7) const bool EIGHTS = false;   // N and all strides of outputs are multiples of 8; needs WIDE
layout(constant_id = 8) const bool TOUCH_B = false;  // see touch_b()
layout(constant_id = 14) const bool AHEAD = false;   // a workgroup makes whole rows of tiles: see TOUCH_TILE
layout(constant_id = 15) const bool WHOLE = false;   // no turn has terms beyond the end
layout(constant_id = 16) const uint COLUMNS = 4;     // of a lane: 4, 2 or 1; fewer than 4 with EIGHTS only
#ifdef LAST_TILE
layout(constant_id = 17) const uint LAST = 1;        // of a lane in the tile that ends a row: 2 or 1, with EIGHTS only
#endif

layout(binding = 0) uniform usamplerBuffer a;
layout(binding = 1) uniform usamplerBuffer b;

const uint HEIGHT = RM;
const uint WIDTH = COLUMNS * SG;
#include "gemm.glsl"
#include "gemm_texel.glsl"

TEXEL_FETCH_ANY(fetch_any_a, a, A_TYPE)
TEXEL_FETCH_ANY(fetch_any_b, b, B_TYPE)

vec4 sum[RM]; // one row behind the other, each of as many columns as the lane has
vec4 av[RM * TERMS / SG / 4]; // A's part of this lane in a turn; see a_value()
vec4 bv[TERMS];               // B's columns of this lane

// ---- A --------------------------------------------------------------------------------------------------------------

// Where NT and NN: values next to each other are terms; lane l fetches rows l, SG + l, ... TN: they are rows; runs of
// them go round the lanes, term by term.
const uint A_RUN = A_TYPE == TYPE_F32 || !A_ALIGNED ? 4 : 8;
const uint A_FETCHES = RM * TERMS / SG / A_RUN;

// Lane number t, to shuffle from. Where a subgroup is a vector of eight and the CPU has AVX2, lavapipe copies a
// constant lane other than the first to all by two instructions, one that is not known when compiling by one (vpermps):
// so something is added that is 0, as the workgroup is one subgroup. For other widths, and on the few CPUs with AVX
// alone, lavapipe copies an unknown lane element by element.
uint lane(uint t)
{
    return SG == 8 && t > 0 ? t + gl_SubgroupID : t;
}

// Element (row, term) of the turn, in all lanes.
float a_value(uint row, uint term)
{
    if (LAYOUT == TN) {
        uint run = (term * RM + row) / A_RUN;
        return subgroupShuffle(av[run / SG * (A_RUN / 4) + row % A_RUN / 4][row % 4], lane(run % SG));
    }
    return subgroupShuffle(av[row / SG * (TERMS / 4) + term / 4][term % 4], lane(row % SG));
}

// The f-th fetch of a turn that starts at term 0: its first element.
uint a_start(Tile tile, uint base, uint f)
{
    if (LAYOUT == TN) {
        uint first = (f * SG + gl_SubgroupInvocationID) * A_RUN;
        return base + first / RM * m + tile.row + first % RM;
    }
    uint row = tile.row + f / (TERMS / A_RUN) * SG + gl_SubgroupInvocationID;
    return base + gathered_row(min(row, tile.row_end - 1)) * k + f % (TERMS / A_RUN) * A_RUN;
}

// The term of that element.
uint a_term(uint f)
{
    return LAYOUT == TN ? (f * SG + gl_SubgroupInvocationID) * A_RUN / RM : f % (TERMS / A_RUN) * A_RUN;
}

void fetch_a(uint start[A_FETCHES], uint i, uint end)
{
    [[unroll]] for (uint f = 0; f < A_FETCHES; ++f) {
        uint at = start[f] + (LAYOUT == TN ? i * m : i), term = i + a_term(f);
        if (!A_ALIGNED) {
            vec4 v = fetch_any_a(at);
            av[f] = LAYOUT != TN ? before(end, term, v) : term < end ? v : vec4(0);
            continue;
        }
        uvec4 texel = texelFetch(a, int(at / A_RUN));
        if (!WHOLE && (LAYOUT == TN || a_term(f) > 0))
            texel = term < end ? texel : uvec4(0);
        [[unroll]] for (uint part = 0; part < A_RUN / 4; ++part)
            av[f * (A_RUN / 4) + part] = texel_part(A_TYPE, texel, part > 0);
    }
}

// ---- B --------------------------------------------------------------------------------------------------------------

const uint B_RUN = B_TYPE == TYPE_F32 || !B_ALIGNED ? 4 : 8;

uint row_numbers[(TERMS + SG - 1) / SG];

// TN with gathered rows of B: one list of them for all lanes.
void load_row_numbers(uint i, uint last)
{
    [[unroll]] for (uint t = 0; t < TERMS; t += SG)
        row_numbers[t / SG] = gathered_row(min(i + t + gl_SubgroupInvocationID, last));
}

uint b_row(uint i, uint t, uint last)
{
    if (LAYOUT == TN && GATHER)
        return subgroupShuffle(row_numbers[t / SG], lane(t % SG));
    return WHOLE ? i + t : min(i + t, last);
}

// ---- tiles ----------------------------------------------------------------------------------------------------------

#ifdef WIDE
#include "gemm_touch.glsl"
#endif

#define COLS COLUMNS
#define TILE(name) name
#include "gemm_shuffle_tile.glsl"
#ifdef LAST_TILE
#define COLS LAST
#define TILE(name) last_##name
#include "gemm_shuffle_tile.glsl"

void make_last_tile(Tile tile)
{
    last_make(tile);
}
#endif

void make_tile(Tile tile)
{
    make(tile);
}

void main()
{
    make_tiles();
}
