#include "base/nearest.h"

#include <string.h>

enum { LONGEST = 63 };

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

size_t cs_edit_distance(const char *a, const char *b)
{
    size_t n = strnlen(a, LONGEST), m = strnlen(b, LONGEST);
    size_t rows[3][LONGEST + 1]; /* rows i-2, i-1 and i of the table, in turn */
    for (size_t j = 0; j <= m; j++)
        rows[0][j] = j;
    for (size_t i = 1; i <= n; i++) {
        size_t *now = rows[i % 3], *before = rows[(i + 2) % 3], *before2 = rows[(i + 1) % 3];
        now[0] = i;
        for (size_t j = 1; j <= m; j++) {
            now[j] = least(before[j - 1] + (a[i - 1] != b[j - 1]), least(before[j], now[j - 1]) + 1);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                now[j] = least(now[j], before2[j - 2] + 1);
        }
    }
    return rows[n % 3][m];
}

const char *cs_nearest(const char *word, const char *const *first, size_t count, size_t stride)
{
    const char *best = NULL;
    size_t limit = 1 + strlen(word) / 3, distance = limit + 1;
    for (size_t i = 0; i < count; i++) {
        const char *name = *(const char *const *)((const char *)first + i * stride);
        size_t d = cs_edit_distance(word, name);
        if (d < distance && d < strlen(name)) {
            distance = d;
            best = name;
        }
    }
    return best;
}
