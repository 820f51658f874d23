// Reading memory before it is wanted, for gemm_shuffle.comp on CPU drivers: what is read here is used in a way that
// changes nothing.

// Reads something of every cache line of a matrix like C that this tile goes to: the lines come while the sums are
// made, where a store, or the read of an epilogue, would wait for each. AHEAD: as many lines of the next row of tiles,
// one behind the other in memory from tile to tile, which a CPU foresees.
#define TOUCH_TILE(NAME, texels, TYPE) \
    uint touch_##NAME(Tile tile) \
    { \
        const uint LINE = 4 * texel_values(TYPE), LINES = (WIDTH + LINE - 1) / LINE; \
        uint seen = 0; \
        [[unroll]] for (uint first = 0; first < RM * LINES; first += SG) { \
            uint index = first + gl_SubgroupInvocationID, row = min(tile.row + index / LINES, m - 1); \
            uint at = row * n + min(tile.column + index % LINES * LINE, n - 1); \
            if (AHEAD) \
                at = min((tile.row + RM) * n + RM * tile.column + index * LINE, m * n - 1); \
            seen |= texelFetch(texels, int((tile.entry * c_stride + at) / texel_values(TYPE))).x; \
        } \
        return seen; \
    }
TOUCH_TILE(c, c_texels, C_TYPE)
TOUCH_TILE(other, other_texels, OTHER_TYPE)

uint touched_entry = ~0u;

// NN: likewise all rows of the columns of B that a workgroup's tiles share, before the first tile of an entry: they lie
// too far apart for a CPU to see what comes next.
uint touch_b(Tile tile)
{
    const uint LINE = 4 * texel_values(B_TYPE), LINES = (WIDTH + LINE - 1) / LINE, FETCHES = 8;
    bool fresh = tile.entry != touched_entry;
    uint base = tile.entry * b_stride + min(tile.column + gl_SubgroupInvocationID % LINES * LINE, n - 1), seen = 0;
    touched_entry = tile.entry;
    for (uint i = fresh ? tile.k : tile.k_end; i < tile.k_end; i += FETCHES * SG / LINES)
        [[unroll]] for (uint f = 0; f < FETCHES; ++f) {
            uint row = min(i + (f * SG + gl_SubgroupInvocationID) / LINES, tile.k_end - 1);
            seen |= texelFetch(b, int((base + row * n) / texel_values(B_TYPE))).x;
        }
    return seen;
}
