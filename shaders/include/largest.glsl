// The largest value of a row with its column, the lowest column among equals. Needs rows.glsl.
#ifndef LARGEST_GLSL
#define LARGEST_GLSL

struct Largest {
    float value;
    uint column; // NO_COLUMN before the first candidate
};

const uint NO_COLUMN = 0xffffffffu;

Largest larger(Largest a, Largest b)
{
    bool take = b.column != NO_COLUMN &&
                (a.column == NO_COLUMN || b.value > a.value || (b.value == a.value && b.column < a.column));
    return take ? b : a;
}

shared float largest_value[256];
shared uint largest_column[256];

// Over the lanes of a row; every invocation of the workgroup calls it.
Largest row_largest(Largest mine)
{
    if (LANES == 1)
        return mine;
#ifdef WIDE
    if (WITHIN_SUBGROUP) {
        [[unroll]] for (uint i = 0; i < 6; i++)
            if (1u << i < LANES)
                mine = larger(mine, Largest(subgroupShuffleXor(mine.value, 1u << i),
                                            subgroupShuffleXor(mine.column, 1u << i)));
        return mine;
    }
#endif
    uint i = gl_LocalInvocationIndex;
    barrier();
    largest_value[i] = mine.value;
    largest_column[i] = mine.column;
    for (uint step = LANES / 2; step > 0; step /= 2) {
        barrier();
        if (row_lane() < step) {
            Largest other = Largest(largest_value[i + step], largest_column[i + step]);
            mine = larger(mine, other);
            largest_value[i] = mine.value;
            largest_column[i] = mine.column;
        }
    }
    barrier();
    uint head = i - row_lane();
    return Largest(largest_value[head], largest_column[head]);
}

#endif
