#include "base/memory.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

void *cs_alloc(size_t n, size_t size, const char *what)
{
    void *p = calloc(n ? n : 1, size);
    if (!p)
        cs_fail("out of memory for %s: %zu x %zu bytes wanted", what, n, size);
    return p;
}

bool cs_grow(void *array, size_t *capacity, size_t wanted, size_t size, const char *what)
{
    if (wanted <= *capacity)
        return true;
    size_t grown = *capacity < 8 ? 8 : *capacity;
    while (grown < wanted) {
        if (grown > SIZE_MAX / 2)
            return cs_fail("out of memory for %s: %zu elements wanted", what, wanted);
        grown *= 2;
    }
    void *old, *p = NULL;
    memcpy(&old, array, sizeof old);
    if (grown <= SIZE_MAX / size)
        p = realloc(old, grown * size);
    if (!p)
        return cs_fail("out of memory for %s: %zu x %zu bytes wanted", what, grown, size);
    memcpy(array, &p, sizeof p);
    *capacity = grown;
    return true;
}

char *cs_strdup(const char *text)
{
    size_t n = strlen(text) + 1;
    char *copy = cs_alloc(n, 1, "a string");
    return copy ? memcpy(copy, text, n) : NULL;
}
