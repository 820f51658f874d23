// Which rows are queries: slot i of a sequence is its row i or, PICKED, row picked_rows[picks[i]] of the batch, whose
// output is row picks[i] of y; slots of -1 are empty. Row sums go by slot. The includer defines batch, and LISTS, the
// first of three bindings.
layout(binding = LISTS, std430) readonly buffer Segments { int segments[]; };            // [B, T]
layout(binding = LISTS + 1, std430) readonly buffer PickedRows { int picked_rows[]; }; // [R], of B * T
layout(binding = LISTS + 2, std430) readonly buffer Picks { int picks[]; };            // [B, queries], of R

// What the lists say of slot i, to be kept: (row, output row or -1). Without PICKED nothing.
ivec2 pick_of(uint i)
{
    int pick = !PICKED ? 0 : i < push.queries ? picks[batch * push.queries + i] : -1;
    return PICKED ? ivec2(picked_rows[max(pick, 0)], pick) : ivec2(0);
}

bool is_query(uint i, ivec2 pick)
{
    return PICKED ? pick.y >= 0 : i < push.queries;
}

// Row of slot i among the batch's; of an empty one some row.
uint query_row(uint i, ivec2 pick)
{
    return PICKED ? uint(pick.x) : batch * push.queries + min(i, push.queries - 1);
}

uint output_row(uint i, ivec2 pick)
{
    return PICKED ? uint(max(pick.y, 0)) : query_row(i, pick);
}

// Place in its sequence.
int query_place(uint i, ivec2 pick)
{
    return PICKED ? pick.x - int(batch * push.keys) : int(i);
}

int query_segment(uint i, ivec2 pick)
{
    return !is_query(i, pick) ? NO_QUERY : SEGMENTS ? as_query(segments[query_row(i, pick)]) : 0;
}

int key_segment(uint j)
{
    return j >= push.keys ? NO_KEY : SEGMENTS ? as_key(segments[batch * push.keys + j]) : 0;
}
