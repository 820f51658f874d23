// How gemm_shuffle.comp makes a tile of COLS columns of each lane. Included once for each COLS that a kernel has;
// TILE() names its functions. As a parameter of functions, COLS would multiply the time that a CPU driver takes to
// compile.

// NT: from runs of terms of each column to columns of each term. Where A is 0, beyond the end, B must be a number.
void TILE(fetch_b_columns)(uint start[4], uint i, uint end)
{
    [[unroll]] for (uint j = 0; j < COLS; ++j)
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

// NN and TN, columns from `start` on. A texel of eight columns serves two neighbouring lanes of four: each fetches one
// of two terms, and they swap halves.
void TILE(fetch_b_rows)(uint start, uint i, uint last)
{
    bool odd = gl_SubgroupInvocationID % 2 == 1;
    if (LAYOUT == TN && GATHER)
        load_row_numbers(i, last);
    [[unroll]] for (uint t = 0; t < TERMS; t += B_RUN == 4 || COLS < 4 ? 1 : 2) {
        uint row = b_row(i, t, last);
        if (!B_ALIGNED) {
            bv[t] = fetch_any_b(start + row * n);
        } else if (B_RUN == 4 || COLS < 4) {
            uvec4 texel = texelFetch(b, int((start + row * n) / B_RUN));
            bv[t] = texel_funnel(B_TYPE, texel, texel, COLS < 4 ? gl_SubgroupInvocationID * COLS % B_RUN : 0);
        } else {
            row = odd ? b_row(i, t + 1, last) : row;
            uvec4 texel = texelFetch(b, int((start + row * n) / B_RUN));
            uvec2 mine = odd ? texel.zw : texel.xy, others = subgroupShuffleXor(odd ? texel.xy : texel.zw, 1);
            bv[t] = unpack_halves(B_TYPE, odd ? others : mine);
            bv[t + 1] = unpack_halves(B_TYPE, odd ? mine : others);
        }
    }
}

// One term for the q-th four of the sums.
void TILE(add_term)(uint q, uint t)
{
    vec4 x;
    [[unroll]] for (uint i = 0; i < 4 / COLS; ++i)
        x[i] = a_value(4 / COLS * q + i, t);
    sum[q] += COLS == 4 ? x.x * bv[t] : COLS == 2 ? x.xxyy * bv[t].xyxy : x * bv[t].x;
}

void TILE(add_terms)()
{
    const uint FOURS = RM * COLS / 4, LEFT = FOURS % RG;
    [[unroll]] for (uint first = 0; first < FOURS - LEFT; first += RG)
        [[unroll]] for (uint t = 0; t < TERMS; ++t)
            [[unroll]] for (uint q = 0; q < RG; ++q)
                TILE(add_term)(first + q, t);
    [[unroll]] for (uint t = 0; t < TERMS; ++t)
        [[unroll]] for (uint q = 0; q < LEFT; ++q)
            TILE(add_term)(FOURS - LEFT + q, t);
}

// Rows and columns beyond the edge come out as anything, terms beyond the end count as 0.
void TILE(multiply)(Tile tile, uint column, uint a_base, uint b_base)
{
    uint a_at[A_FETCHES], b_at[4];
    [[unroll]] for (uint f = 0; f < A_FETCHES; ++f)
        a_at[f] = a_start(tile, a_base, f);
    [[unroll]] for (uint j = 0; j < COLS; ++j)
        b_at[j] = b_base + (LAYOUT == NT ? min(column + j, n - 1) * k : column);
    uint i = tile.k;
    if (i < tile.k_end)
        do {
            fetch_a(a_at, i, tile.k_end);
            if (LAYOUT == NT)
                TILE(fetch_b_columns)(b_at, i, tile.k_end);
            else
                TILE(fetch_b_rows)(b_at[0], i, tile.k_end - 1);
            TILE(add_terms)();
            i += TERMS;
        } while (i < tile.k_end);
}

// ---- the sums, stored -----------------------------------------------------------------------------------------------

// Drops the first `fours` fours of sums: a rolled loop over the rows is a quarter of the code of an unrolled one, which
// a CPU driver takes longer to compile than the whole product.
void TILE(drop)(uint fours)
{
    [[unroll]] for (uint i = 0; i < RM * COLS / 4; ++i)
        if (i + fours < RM * COLS / 4)
            sum[i] = sum[i + fours];
}

// Eight sums from number `first` on, which are rows of `columns` each, become eight columns of one row, that of number
// lane % rows: in round i those rows are swapped between lanes that differ in bit i of their numbers.
mat2x4 TILE(swap_rows)(uint first)
{
    float x[8];
    [[unroll]] for (uint i = 0; i < 8; ++i)
        x[i] = sum[first / 4 + i / 4][i % 4];
    [[unroll]] for (uint round = 0; round < 3; ++round)
        [[unroll]] for (uint i = 0; i < 8; ++i) {
            uint j = i + (COLS << round);
            if (j < 8 && (i / COLS >> round & 1) == 0) {
                bool upper = (gl_SubgroupInvocationID >> round & 1) != 0;
                float others = subgroupShuffleXor(upper ? x[i] : x[j], 1 << round);
                x[i] = upper ? others : x[i];
                x[j] = upper ? x[j] : others;
            }
        }
    return mat2x4(x[0], x[1], x[2], x[3], x[4], x[5], x[6], x[7]);
}

// As many rows as eight sums have, from row r of the tile on.
void TILE(store_rows)(Tile tile, uint column, uint rows, uint r, uint first)
{
    mat2x4 v = TILE(swap_rows)(first);
    uint row = r + gl_SubgroupInvocationID % (8 / COLS);
    if (row < rows && column < n)
        complete_eight(tile.entry, tile.row + row, column & ~7u, v[0], v[1]);
}

// Unrolled where there is little to do, by a count of rows that is a constant. One call either way, as a driver reads
// all epilogues behind each.
void TILE(store_eights)(Tile tile, uint column, uint rows)
{
    const bool UNROLLED = EPILOGUE == NONE;
    uint r = 0;
    [[unroll]] do {
        if (!UNROLLED || r < rows)
            TILE(store_rows)(tile, column, rows, r, UNROLLED ? r * COLS : 0);
        if (!UNROLLED)
            TILE(drop)(2);
    } while ((r += 8 / COLS) < (UNROLLED ? RM : rows));
}

void TILE(store)(Tile tile, uint column)
{
    uint rows = min(tile.row_end - tile.row, RM);
    if (EIGHTS) {
        TILE(store_eights)(tile, column, rows);
        return;
    }
    uint r = 0;
    [[dont_unroll]] do {
        if (column < n)
            complete(tile.entry, tile.row + r, column, sum[0], min(n - column, 4));
        TILE(drop)(1);
    } while (++r < rows);
}

// Of a lane's columns.
vec4 TILE(bias_of)(Tile tile, uint column)
{
    uint at = (first_group + tile.entry) * bias_stride + column;
    if (COLS == 4)
        return load_bias(at, min(n - column, 4));
    uvec4 four = floatBitsToUint(load_bias(at & ~3u, 4));
    return texel_funnel(TYPE_F32, four, four, at);
}

void TILE(make)(Tile tile)
{
    uint column = tile.column + COLS * gl_SubgroupInvocationID;
#ifdef WIDE
    uint seen = touch_c(tile) | (HAS_OTHER ? touch_other(tile) : 0) | (TOUCH_B ? touch_b(tile) : 0);
#endif
    vec4 start = vec4(0);
    if (ADD_BIAS && column < n)
        start = TILE(bias_of)(tile, column);
    [[unroll]] for (uint i = 0; i < RM * COLS / 4; ++i)
        sum[i] = COLS == 4 ? start : COLS == 2 ? start.xyxy : start.xxxx;
    uint s = 0;
    do {
        uint entry = tile.entry * segments + s;
        TILE(multiply)(tile, column, entry * a_stride, entry * b_stride);
    } while (++s < segments);
#ifdef WIDE
    column += min(seen, nothing);
#endif
    TILE(store)(tile, column);
}

#undef COLS
#undef TILE
