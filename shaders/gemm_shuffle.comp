#version 450
// Matrix product for CPU drivers: one workgroup is one subgroup and keeps a tile of RM x 4 SG elements of C in
// registers, without shared memory. On these drivers loads are what costs, and a texel fetch of 16 bytes is the
// cheapest there is: each lane fetches what it needs of B's four columns of its own; A's RM rows are spread over the
// lanes and handed round by shuffles from constant lanes. A fetch is a function call, around which all sums go to
// memory: so a turn of the loop fetches all of its terms first and then works on RG rows at a time, whose sums fit a
// CPU's registers.
#extension GL_EXT_control_flow_attributes : require
#extension GL_GOOGLE_include_directive : require
#extension GL_KHR_shader_subgroup_shuffle : require
#ifdef WIDE
#extension GL_EXT_shader_explicit_arithmetic_types_int64 : require
#endif

layout(local_size_x = 8, local_size_x_id = 0) in;
layout(constant_id = 0) const uint SG = 8; // the subgroup size, at most RM
layout(constant_id = 1) const uint LAYOUT = 0;
layout(constant_id = 2) const uint RM = 16;    // a multiple of 8
layout(constant_id = 3) const uint RG = 6;
layout(constant_id = 4) const uint TERMS = 8;  // in a turn of the loop, a multiple of 8
layout(constant_id = 5) const bool A_ALIGNED = true; // rows of A, and what lies between its entries, are whole texels
layout(constant_id = 6) const bool B_ALIGNED = true;
layout(constant_id = 7) const bool EIGHTS = false;   // N and all strides of outputs are multiples of 8; needs WIDE
layout(constant_id = 8) const bool TOUCH_B = false;  // see touch_b()
layout(constant_id = 14) const bool AHEAD = false;   // a workgroup makes whole rows of tiles: see TOUCH_TILE
layout(constant_id = 15) const bool WHOLE = false;   // no turn has terms beyond the end

layout(binding = 0) uniform usamplerBuffer a;
layout(binding = 1) uniform usamplerBuffer b;

const uint HEIGHT = RM;
const uint WIDTH = 4 * SG;
#include "gemm.glsl"
#include "gemm_texel.glsl"

TEXEL_FETCH_ANY(fetch_any_a, a, A_TYPE)
TEXEL_FETCH_ANY(fetch_any_b, b, B_TYPE)

vec4 sum[RM];
vec4 av[RM * TERMS / SG / 4]; // A's part of this lane in a turn; see a_value()
vec4 bv[TERMS];               // B's four columns of this lane

// ---- A --------------------------------------------------------------------------------------------------------------

// Where NT and NN: values next to each other are terms; lane l fetches rows l, SG + l, ... TN: they are rows; runs of
// them go round the lanes, term by term.
const uint A_RUN = A_TYPE == TYPE_F32 || !A_ALIGNED ? 4 : 8;
const uint A_FETCHES = RM * TERMS / SG / A_RUN;

// Element (row, term) of the turn, in all lanes.
float a_value(uint row, uint term)
{
    if (LAYOUT == TN) {
        uint run = (term * RM + row) / A_RUN;
        return subgroupShuffle(av[run / SG * (A_RUN / 4) + row % A_RUN / 4][row % 4], run % SG);
    }
    return subgroupShuffle(av[row / SG * (TERMS / 4) + term / 4][term % 4], row % SG);
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

// NT: from runs of terms of each column to columns of each term. Where A is 0, beyond the end, B must be a number.
void fetch_b_columns(uint start[4], uint i, uint end)
{
    [[unroll]] for (uint j = 0; j < 4; ++j)
        [[unroll]] for (uint t = 0; t < TERMS; t += B_RUN) {
            uint term = i + t;
            uvec4 texel = uvec4(0);
            if (B_ALIGNED)
                texel = texelFetch(b, int((start[j] + (t > 0 && !WHOLE ? min(term, end - B_RUN) : term)) / B_RUN));
            [[unroll]] for (uint part = 0; part < B_RUN / 4; ++part) {
                vec4 v = B_ALIGNED ? texel_part(B_TYPE, texel, part > 0)
                                   : before(end, term, fetch_any_b(start[j] + min(term, end - 1)));
                [[unroll]] for (uint c = 0; c < 4; ++c)
                    bv[t + 4 * part + c][j] = v[c];
            }
        }
}

uint row_numbers[(TERMS + SG - 1) / SG];

// TN with gathered rows of B: one list of them for all lanes.
void load_row_numbers(uint i, uint last)
{
    [[unroll]] for (uint t = 0; t < TERMS; t += SG)
        row_numbers[t / SG] = gathered_row(min(i + t + gl_SubgroupInvocationID, last));
}

uint b_row(uint i, uint t, uint last)
{
    return LAYOUT == TN && GATHER ? subgroupShuffle(row_numbers[t / SG], t % SG) : WHOLE ? i + t : min(i + t, last);
}

// NN and TN, four columns from `start` on. A texel of eight columns serves two neighbouring lanes: each fetches one of
// two terms, and they swap halves.
void fetch_b_rows(uint start, uint i, uint last)
{
    bool odd = gl_SubgroupInvocationID % 2 == 1;
    if (LAYOUT == TN && GATHER)
        load_row_numbers(i, last);
    [[unroll]] for (uint t = 0; t < TERMS; t += B_RUN / 4) {
        uint row = b_row(i, t, last);
        if (!B_ALIGNED) {
            bv[t] = fetch_any_b(start + row * n);
        } else if (B_RUN == 4) {
            bv[t] = texel_part(B_TYPE, texelFetch(b, int((start + row * n) / B_RUN)), false);
        } else {
            row = odd ? b_row(i, t + 1, last) : row;
            uvec4 texel = texelFetch(b, int((start + row * n) / B_RUN));
            uvec2 mine = odd ? texel.zw : texel.xy, others = subgroupShuffleXor(odd ? texel.xy : texel.zw, 1);
            bv[t] = unpack_halves(B_TYPE, odd ? others : mine);
            bv[t + 1] = unpack_halves(B_TYPE, odd ? mine : others);
        }
    }
}

// ---- the tile -------------------------------------------------------------------------------------------------------

void add_terms()
{
    [[unroll]] for (uint first = 0; first < (RM + RG - 1) / RG; ++first)
        [[unroll]] for (uint t = 0; t < TERMS; ++t)
            [[unroll]] for (uint r = 0; r < RG; ++r)
                if (first * RG + r < RM)
                    sum[first * RG + r] += a_value(first * RG + r, t) * bv[t];
}

// Rows and columns beyond the edge come out as anything, terms beyond the end count as 0.
void multiply(Tile tile, uint column, uint a_base, uint b_base)
{
    uint a_at[A_FETCHES], b_at[4];
    [[unroll]] for (uint f = 0; f < A_FETCHES; ++f)
        a_at[f] = a_start(tile, a_base, f);
    [[unroll]] for (uint j = 0; j < 4; ++j)
        b_at[j] = b_base + (LAYOUT == NT ? min(column + j, n - 1) * k : column);
    uint i = tile.k;
    if (i < tile.k_end)
        do {
            fetch_a(a_at, i, tile.k_end);
            if (LAYOUT == NT)
                fetch_b_columns(b_at, i, tile.k_end);
            else
                fetch_b_rows(b_at[0], i, tile.k_end - 1);
            add_terms();
            i += TERMS;
        } while (i < tile.k_end);
}

// Moves the sums down by `rows`: a rolled loop over the rows is a quarter of the code of an unrolled one, which a CPU
// driver takes longer to compile than the whole product.
void shift_sums(uint rows)
{
    [[unroll]] for (uint i = 0; i < RM; ++i)
        if (i + rows < RM)
            sum[i] = sum[i + rows];
}

// Two rows at once: two neighbouring lanes swap, so that each has eight columns of one of them.
void store_pair(Tile tile, uint column, uint rows, uint r, vec4 even_row, vec4 odd_row)
{
    bool odd = gl_SubgroupInvocationID % 2 == 1;
    vec4 others = subgroupShuffleXor(odd ? even_row : odd_row, 1);
    uint row = r + (odd ? 1 : 0);
    if (row < rows && column < n)
        complete_eight(tile.entry, tile.row + row, column & ~7u, odd ? others : even_row, odd ? odd_row : others);
}

// Unrolled where there is little to do.
void store_eights(Tile tile, uint column, uint rows)
{
    if (EPILOGUE == NONE) {
        [[unroll]] for (uint r = 0; r < RM; r += 2)
            if (r < rows)
                store_pair(tile, column, rows, r, sum[r], sum[r + 1]);
        return;
    }
    uint r = 0;
    [[dont_unroll]] do {
        store_pair(tile, column, rows, r, sum[0], sum[1]);
        shift_sums(2);
    } while ((r += 2) < rows);
}

void store(Tile tile, uint column)
{
    uint rows = min(tile.row_end - tile.row, RM);
    if (EIGHTS) {
        store_eights(tile, column, rows);
        return;
    }
    uint r = 0;
    [[dont_unroll]] do {
        if (column < n)
            complete(tile.entry, tile.row + r, column, sum[0], min(n - column, 4));
        shift_sums(1);
    } while (++r < rows);
}

#ifdef WIDE
#include "gemm_touch.glsl"
#endif

void make_tile(Tile tile)
{
    uint column = tile.column + 4 * gl_SubgroupInvocationID;
#ifdef WIDE
    uint seen = touch_c(tile) | (HAS_OTHER ? touch_other(tile) : 0) | (TOUCH_B ? touch_b(tile) : 0);
#endif
    vec4 start = vec4(0);
    if (ADD_BIAS && column < n)
        start = load_bias((first_group + tile.entry) * bias_stride + column, min(n - column, 4));
    [[unroll]] for (uint r = 0; r < RM; ++r)
        sum[r] = start;
    uint s = 0;
    do {
        uint entry = tile.entry * segments + s;
        multiply(tile, column, entry * a_stride, entry * b_stride);
    } while (++s < segments);
#ifdef WIDE
    column += min(seen, nothing);
#endif
    store(tile, column);
}

void main()
{
    make_tiles();
}
