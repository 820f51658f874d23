// Tiles of keys and values for kernels whose lanes own query rows. The includer defines lane, key(), value(),
// key_segment() and VALUE_WIDTH. OWN_* is what a lane has to read before TILE_* can be asked for.
#ifdef SHUFFLE
#define OWN_KEY(j, c) key(j + lane, c)
#define OWN_VALUE(j, c) value(j + lane, c)
#define TILE_KEY(own, t, c) subgroupShuffle(own, t)
#define TILE_VALUE(own, t, c) subgroupShuffle(own, t)
#define TILE_SEGMENT(t) subgroupShuffle(own_segment, t)
int own_segment; // of the lane's row of the tile
#else
#define OWN_KEY(j, c) vec4(0)
#define OWN_VALUE(j, c) vec4(0)
#define TILE_KEY(own, t, c) tile_key[(t) * WIDTH + (c)]
#define TILE_VALUE(own, t, c) tile_value[(t) * VALUE_WIDTH + (c)]
#define TILE_SEGMENT(t) tile_segment[t]
shared vec4 tile_key[TILE * WIDTH], tile_value[TILE * VALUE_WIDTH];
shared int tile_segment[TILE];
#endif

int segment[ROWS]; // of the lane's rows
ivec2 limits[ROWS];
ivec4 span; // of all rows: -(lowest segment), highest segment, highest limits

// Sets the above for the lane's rows, the first of them at `first`.
void survey_rows(uint first)
{
    span = ivec4(-NEVER, -1, -1, -1);
    [[unroll]] for (uint r = 0; r < ROWS; r++) {
        segment[r] = query_segment(first + r * LANES);
        limits[r] = limits_of(int(first + r * LANES), segment[r]);
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
