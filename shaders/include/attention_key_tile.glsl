// Tiles of keys and values for kernels whose lanes own query rows. The includer has attention_queries.glsl and defines
// lane, key(), value(), VALUE_PARTS (how many parts the rows of the tile of values have) and START if it needs it.
#include "attention_tile.glsl"

DEFINE_TILE(key, CHUNKS)
DEFINE_TILE(value, VALUE_PARTS)

#ifdef SHUFFLE
#define TILE_SEGMENT(t) subgroupShuffle(own_segment, t)
int own_segment; // of the lane's row of the tile
#else
#define TILE_SEGMENT(t) tile_segment[t]
shared int tile_segment[TILE];
#endif

ivec2 pick[ROWS]; // of the lane's rows
int segment[ROWS];
ivec2 limits[ROWS];
ivec4 span; // of all rows: -(lowest segment), highest segment, highest limits

// Sets the above for the lane's rows, the first of them at `first`.
void survey_rows(uint first)
{
    span = ivec4(-NEVER, -1, -1, -1);
    [[unroll]] for (uint r = 0; r < ROWS; r++) {
        uint i = first + r * LANES;
        pick[r] = pick_of(i);
        segment[r] = query_segment(i, pick[r]);
        limits[r] = limits_of(query_place(i, pick[r]), segment[r]);
        span = max(span, ivec4(segment[r] < 0 ? -NEVER : -segment[r], segment[r], limits[r]));
    }
    span = workgroup_max(span);
}

// End of the keys that the workgroup's rows may see.
uint workgroup_end()
{
    return uint(max(span.z, span.w) + 1);
}

// Whether some row may see the key at j.
bool touches(uint j, int theirs)
{
    int last = theirs == 0 ? span.z : theirs >= -span.x && theirs <= span.y ? span.w : -1;
    return int(j) <= last;
}

// The first tile from j on with a key that some row may see, or one beyond `end`.
uint seek(uint j, uint end)
{
    if (!SEGMENTS)
        return j;
    bool found;
    do {
#ifdef SHUFFLE
        own_segment = key_segment(j + lane);
        found = workgroup_any(touches(j + lane, own_segment));
#else
        bool mine = false;
        for (uint t = lane; t < TILE; t += LANES)
            mine = mine || touches(j + t, key_segment(j + t));
        found = workgroup_any(mine);
#endif
        j += TILE;
    } while (!found && j < end);
    return found ? j - TILE : j;
}

// Makes the tile of keys from j on, found by seek(), readable.
void open_tile(uint j)
{
#ifndef SHUFFLE
    barrier(); // all have finished with the last tile
    for (uint t = lane; t < TILE; t += LANES)
        tile_segment[t] = key_segment(j + t);
    for (uint n = lane; n < TILE * WIDTH; n += LANES)
        tile_key[n] = key(j + n / WIDTH, n % WIDTH);
    const uint VALUE_WIDTH = VALUE_PARTS * CHUNK;
    for (uint n = lane; n < TILE * VALUE_WIDTH; n += LANES)
        tile_value[n] = value(j + n / VALUE_WIDTH, n % VALUE_WIDTH);
    barrier();
#endif
}

// Whether key u of the tile at j is visible to the lane's row r.
bool visible(uint r, uint j, uint u)
{
    return int(j + u) <= limit_of(TILE_SEGMENT(u), segment[r], limits[r]);
}

// Before the products with a part of the tile's keys or values.
void take_keys(uint j, uint part)
{
#ifdef SHUFFLE
    [[unroll]] for (uint c = 0; c < CHUNK; c++)
        key_take(c, key(j + lane, part * CHUNK + c));
#endif
}

void take_values(uint j, uint part)
{
#ifdef SHUFFLE
    [[unroll]] for (uint c = 0; c < CHUNK; c++)
        value_take(c, value(j + lane, part * CHUNK + c));
#endif
}
