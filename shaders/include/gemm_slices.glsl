// Slices of A and B, BK terms deep, on their way into shared memory: chunks of 16 bytes as they lie in memory, dealt
// out to the invocations, fetched into registers while the slice before is being multiplied. A line of chunks is a row
// of terms where the matrix lies along the terms (A in NT and NN, B in NT), else a term (A in TN, B in NN and TN).
// Included after gemm.glsl. The including kernel defines before:
//   BM, BN, BK  the tile and its depth, multiples of 8
//   ALIGNED     chunks start at multiples of 16 bytes and do not cross an edge

layout(std430, binding = 0) readonly buffer A_words { uint a1[]; };
layout(std430, binding = 0) readonly buffer A_chunks { uvec4 a4[]; };
layout(std430, binding = 1) readonly buffer B_words { uint b1[]; };
layout(std430, binding = 1) readonly buffer B_chunks { uvec4 b4[]; };

const uint A_EACH = A_TYPE == TYPE_F32 ? 4 : 8; // elements of a chunk
const uint B_EACH = B_TYPE == TYPE_F32 ? 4 : 8;
const uint A_LINES = LAYOUT == TN ? BK : BM, A_LENGTH = (LAYOUT == TN ? BM : BK) / A_EACH; // a line in chunks
const uint B_LINES = LAYOUT == NT ? BN : BK, B_LENGTH = (LAYOUT == NT ? BK : BN) / B_EACH;
const uint A_CHUNKS = A_LINES * A_LENGTH, B_CHUNKS = B_LINES * B_LENGTH;
const uint INVOCATIONS = gl_WorkGroupSize.x;
const uint A_SHARE = (A_CHUNKS + INVOCATIONS - 1) / INVOCATIONS; // chunks of one invocation
const uint B_SHARE = (B_CHUNKS + INVOCATIONS - 1) / INVOCATIONS;

uvec4 a_next[A_SHARE], b_next[B_SHARE];
uint a_at[A_SHARE], b_at[B_SHARE]; // where the chunks of a slice at term 0 start
uint b_rows[B_SHARE]; // TN with gathered rows of B: those of the slice that is fetched next

// Lines of fewer than eight chunks are dealt out eight at a time, so that the eight chunks that neighbours store
// together lie in different banks of shared memory, although the lines are a chunk longer there.
uint spread_line(uint line, uint length)
{
    if (length >= 8)
        return line;
    uint low = line % 8, each = 8 / length;
    return line - low + low % each * length + low / each;
}

// Which chunk of the slice is an invocation's i-th, by line and by element along it.
uint a_line(uint i)
{
    return spread_line((i * INVOCATIONS + gl_LocalInvocationIndex) / A_LENGTH, A_LENGTH);
}

uint a_along(uint i)
{
    return (i * INVOCATIONS + gl_LocalInvocationIndex) % A_LENGTH * A_EACH;
}

uint b_line(uint i)
{
    return spread_line((i * INVOCATIONS + gl_LocalInvocationIndex) / B_LENGTH, B_LENGTH);
}

uint b_along(uint i)
{
    return (i * INVOCATIONS + gl_LocalInvocationIndex) % B_LENGTH * B_EACH;
}

// `count` elements from element `at`, then zeros.
#define LOAD_CHUNK(NAME, TYPE, EACH) \
    uvec4 load_##NAME##_chunk(uint at, uint count) \
    { \
        if (ALIGNED) \
            return count == 0 ? uvec4(0) : NAME##4[at / EACH]; \
        uvec4 chunk = uvec4(0); \
        for (uint i = 0; i < count; ++i) { \
            if (TYPE == TYPE_F32) \
                chunk[i] = NAME##1[at + i]; \
            else \
                chunk[i / 2] |= (NAME##1[(at + i) / 2] >> (at + i) % 2 * 16 & 0xffffu) << i % 2 * 16; \
        } \
        return chunk; \
    }

LOAD_CHUNK(a, A_TYPE, A_EACH)
LOAD_CHUNK(b, B_TYPE, B_EACH)

// Elements of [at, end), at most `most`.
uint count_until(uint at, uint end, uint most)
{
    return at < end ? min(end - at, most) : 0;
}

// Looks up the rows of the slice from term `from` on, so early that its fetch does not wait for the list.
void look_up(Tile tile, uint from)
{
    if (LAYOUT == TN && GATHER)
        [[unroll]] for (uint i = 0; i < B_SHARE; ++i)
            b_rows[i] = gathered_row(min(from + b_line(i), tile.k_end - 1));
}

// Finds the chunks of a tile, before the first fetch.
void aim(Tile tile, uint a_base, uint b_base)
{
    [[unroll]] for (uint i = 0; i < A_SHARE; ++i) {
        if (LAYOUT == TN)
            a_at[i] = a_base + a_line(i) * m + tile.row + a_along(i);
        else
            a_at[i] = a_base + gathered_row(min(tile.row + a_line(i), tile.row_end - 1)) * k + a_along(i);
    }
    [[unroll]] for (uint i = 0; i < B_SHARE; ++i) {
        if (LAYOUT == NT)
            b_at[i] = b_base + (tile.column + b_line(i)) * k + b_along(i);
        else
            b_at[i] = b_base + (LAYOUT == TN && GATHER ? 0 : b_line(i) * n) + tile.column + b_along(i);
    }
    look_up(tile, tile.k);
}

// Fetches the slice from term `from` on; rows, columns and terms outside the tile are zeros.
void fetch(Tile tile, uint from)
{
    [[unroll]] for (uint i = 0; i < A_SHARE; ++i) {
        uint row = tile.row + (LAYOUT == TN ? a_along(i) : a_line(i));
        uint at_term = from + (LAYOUT == TN ? a_line(i) : a_along(i));
        bool inside = row < tile.row_end && at_term < tile.k_end;
        if (LAYOUT == TN)
            a_next[i] = load_a_chunk(a_at[i] + from * m, inside ? count_until(row, tile.row_end, A_EACH) : 0);
        else
            a_next[i] = load_a_chunk(a_at[i] + from, inside ? count_until(at_term, tile.k_end, A_EACH) : 0);
    }
    [[unroll]] for (uint i = 0; i < B_SHARE; ++i) {
        uint column = tile.column + (LAYOUT == NT ? b_line(i) : b_along(i));
        uint at_term = from + (LAYOUT == NT ? b_along(i) : b_line(i));
        bool inside = column < n && at_term < tile.k_end;
        if (LAYOUT == NT) {
            b_next[i] = load_b_chunk(b_at[i] + from, inside ? count_until(at_term, tile.k_end, B_EACH) : 0);
        } else {
            uint line = LAYOUT == TN && GATHER ? b_rows[i] : from;
            b_next[i] = load_b_chunk(b_at[i] + line * n, inside ? count_until(column, n, B_EACH) : 0);
        }
    }
    look_up(tile, from + BK);
}

// What the kernel does with slices: stores what was fetched in one of the two places in shared memory; adds the
// products of what is there to its sums.
void put(uint side);
void multiply_slices(uint side);

// The sum over the tile's terms.
void sum_slices(Tile tile, uint a_base, uint b_base)
{
    if (tile.k >= tile.k_end)
        return;
    aim(tile, a_base, b_base);
    fetch(tile, tile.k);
    put(0);
    barrier();
    uint side = 0;
    for (uint from = tile.k; from < tile.k_end; from += BK) {
        bool more = from + BK < tile.k_end;
        if (more)
            fetch(tile, from + BK); // under way during the products
        multiply_slices(side);
        side ^= 1;
        if (more)
            put(side);
        barrier();
    }
}
