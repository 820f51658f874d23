// What the attention kernels do with a tile of rows that all lanes see. DEFINE_TILE(NAME, PARTS) makes, for rows of
// PARTS * CHUNK vec4s:
//   NAME_scores(s, x, u, part)   s[r][t] += dot of x[r] and part `part` of row u + t of the tile
//   NAME_sums(o, s, u, part)     o[r] = START(o[r], r) + sum over t of s[r][t] times that part
// and how its rows get there:
//   NAME_take(c, row)            SHUFFLE: this lane's row; before the above, with the part that they shall use
//   tile_NAME[row * ...]         otherwise: shared memory
//
// On CPU drivers a call (every texel fetch is one) and every value that does not fit into registers cost as much as
// several multiplications: so all is fetched first, and the loops are ordered such that few sums are open at a time.
#ifndef START
#define START(sum, r) (sum)
#endif

#ifdef SHUFFLE

const uint OPEN_SCORES = BLOCK < 4 ? BLOCK : 4; // times ROWS sums

#define DEFINE_TILE(NAME, PARTS) \
    vec4 own_##NAME[CHUNK]; \
    void NAME##_take(uint c, vec4 row) \
    { \
        own_##NAME[c] = row; \
    } \
    void NAME##_scores(inout float s[ROWS][BLOCK], vec4 x[ROWS][CHUNK], uint u, uint part) \
    { \
        [[unroll]] for (uint b = 0; b < BLOCK; b += OPEN_SCORES) \
            [[unroll]] for (uint c = 0; c < CHUNK; c++) \
                [[unroll]] for (uint i = 0; i < 4; i++) \
                    [[unroll]] for (uint t = 0; t < OPEN_SCORES; t++) { \
                        float y = subgroupShuffle(own_##NAME[c][i], u + b + t); \
                        [[unroll]] for (uint r = 0; r < ROWS; r++) \
                            s[r][b + t] += x[r][c][i] * y; \
                    } \
    } \
    void NAME##_sums(inout vec4 o[ROWS][CHUNK], float s[ROWS][BLOCK], uint u, uint part) \
    { \
        [[unroll]] for (uint c = 0; c < CHUNK; c++) \
            [[unroll]] for (uint i = 0; i < 4; i++) { \
                float sums[ROWS]; \
                [[unroll]] for (uint r = 0; r < ROWS; r++) \
                    sums[r] = START(o[r][c][i], r); \
                [[unroll]] for (uint t = 0; t < BLOCK; t++) { \
                    float y = subgroupShuffle(own_##NAME[c][i], u + t); \
                    [[unroll]] for (uint r = 0; r < ROWS; r++) \
                        sums[r] += s[r][t] * y; \
                } \
                [[unroll]] for (uint r = 0; r < ROWS; r++) \
                    o[r][c][i] = sums[r]; \
            } \
    }

#else

#define DEFINE_TILE(NAME, PARTS) \
    shared vec4 tile_##NAME[TILE * (PARTS) * CHUNK]; \
    void NAME##_scores(inout float s[ROWS][BLOCK], vec4 x[ROWS][CHUNK], uint u, uint part) \
    { \
        [[unroll]] for (uint c = 0; c < CHUNK; c++) \
            [[unroll]] for (uint t = 0; t < BLOCK; t++) { \
                vec4 y = tile_##NAME[((u + t) * (PARTS) + part) * CHUNK + c]; \
                [[unroll]] for (uint r = 0; r < ROWS; r++) \
                    s[r][t] += dot(x[r][c], y); \
            } \
    } \
    void NAME##_sums(inout vec4 o[ROWS][CHUNK], float s[ROWS][BLOCK], uint u, uint part) \
    { \
        [[unroll]] for (uint c = 0; c < CHUNK; c++) { \
            [[unroll]] for (uint r = 0; r < ROWS; r++) \
                o[r][c] = START(o[r][c], r); \
            [[unroll]] for (uint t = 0; t < BLOCK; t++) { \
                vec4 y = tile_##NAME[((u + t) * (PARTS) + part) * CHUNK + c]; \
                [[unroll]] for (uint r = 0; r < ROWS; r++) \
                    o[r][c] += s[r][t] * y; \
            } \
        } \
    }

#endif

// Moves the next one to the front: for loops that store one vector per turn. They are not unrolled, because a store is
// so much code that a CPU driver would take longer to compile it than to run it.
#define NEXT_VECTOR(vectors) \
    [[unroll]] for (uint next = 1; next < CHUNK; next++) \
        vectors[next - 1] = vectors[next]
