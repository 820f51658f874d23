// What the matrix product kernels share: push constants and specialization constants (mirrored in nn/gemm_variants.c),
// which tiles of C a workgroup makes, and what is done with a finished sum. The including kernel defines before:
//   LAYOUT         0 (NT): C[m,n] = sum over k of A[m,k] B[n,k]      y = x W^T
//                  1 (NN): C[m,n] = sum over k of A[m,k] B[k,n]      dx = dy W
//                  2 (TN): C[m,n] = sum over k of A[k,m] B[k,n]      dW = dy^T x
//   HEIGHT, WIDTH  of a tile
//   LAST_TILE      where a workgroup makes whole rows, each ended by a narrow tile for what is left behind whole ones
// and binds A and B itself, at 0 and 1. Operands are words, read by their type (A_TYPE, B_TYPE).
// Grouped, NT and NN: rows offsets[e]..offsets[e+1]-1 of A and C belong to group e, which has its own B and bias.
// Grouped, TN: these rows of A and B are what group e sums over; it has its own C.
// GATHER, NT and NN: row i of A lies at row gathered_row(i) of what is bound; TN: so does row i of B.

#include "gemm_finish.glsl"

const uint NT = 0, NN = 1, TN = 2;

layout(std430, binding = 4) readonly buffer Offsets { int offsets[]; };
layout(std430, binding = 5) readonly buffer Rows { int row_list[]; };

uint gathered_row(uint i)
{
    return GATHER ? uint(row_list[i]) : i;
}

struct Tile {
    uint entry;        // batch entry or group
    uint row, row_end; // first row of C and one past the last of this entry; nothing to do where row >= row_end
    uint column;       // first column of C
    uint k, k_end;     // the terms summed over
};

// Makes the tile, all invocations of the workgroup together.
void make_tile(Tile tile);
#ifdef LAST_TILE
void make_last_tile(Tile tile); // a narrow one
#endif

// Grouped rows: the tiles of all groups.
uint count_tiles()
{
    uint first = uint(offsets[first_group]), count = 0;
    for (uint e = 0; e < groups; ++e) {
        uint end = uint(offsets[first_group + e + 1]);
        count += (end - first + HEIGHT - 1) / HEIGHT;
        first = end;
    }
    return count;
}

// Grouped rows: the tile of that index among those of all groups.
Tile find_tile(uint index)
{
    uint first = uint(offsets[first_group]);
    for (uint e = 0; e < groups; ++e) {
        uint end = uint(offsets[first_group + e + 1]);
        uint tiles = (end - first + HEIGHT - 1) / HEIGHT;
        if (index < tiles)
            return Tile(e, first + index * HEIGHT, end, 0, 0, k);
        index -= tiles;
        first = end;
    }
    return Tile(0, 0, 0, 0, 0, 0);
}

// With all terms.
Tile first_tile(uint index)
{
    uint entry = gl_WorkGroupID.z;
    if (groups == 0)
        return Tile(entry, index * HEIGHT, m, 0, 0, k);
    if (LAYOUT != TN)
        return find_tile(index);
    entry = entry * group_step % groups;
    return Tile(entry, index * HEIGHT, m, 0, uint(offsets[first_group + entry]),
                uint(offsets[first_group + entry + 1]));
}

// The one below it; below a group's last one comes the first of the next group with rows.
void move_down(inout Tile tile)
{
    tile.row += HEIGHT;
    if (LAYOUT != TN)
        while (tile.row >= tile.row_end && tile.entry + 1 < groups) {
            tile.row = tile.row_end;
            tile.row_end = uint(offsets[first_group + ++tile.entry + 1]);
        }
}

void make_tiles()
{
    uint first = gl_WorkGroupID.x * column_tiles * WIDTH, last = min(first + column_tiles * WIDTH, n);
#ifdef LAST_TILE
    last -= last % WIDTH;
#endif
    uint row = gl_WorkGroupID.y * row_tiles, row_last = row + row_tiles;
    if (row_tiles == 0) {
        uint count = count_tiles();
        row = count * gl_WorkGroupID.y / gl_NumWorkGroups.y;
        row_last = count * (gl_WorkGroupID.y + 1) / gl_NumWorkGroups.y;
    }
    Tile tile = first_tile(row);
    tile.k = min(tile.k + term, tile.k_end);
    tile.k_end = min(tile.k + terms, tile.k_end);
    do {
        if (tile.row >= tile.row_end || row == row_last)
            break;
        tile.column = first;
        do {
            make_tile(tile);
            tile.column += WIDTH;
        } while (tile.column < last);
#ifdef LAST_TILE
        make_last_tile(tile);
#endif
        move_down(tile);
    } while (++row < row_last);
}
