/* Checked allocation: every size is a product that cannot overflow, every failure an error that says what was
 * wanted. */
#ifndef BASE_MEMORY_H
#define BASE_MEMORY_H

#include <stdbool.h>
#include <stddef.h>

/* Zeroed array of n elements of `size` bytes; NULL with the error set ("out of memory for <what>: ..."). n = 0 gives a
 * valid pointer. Released with free(). */
void *cs_alloc(size_t n, size_t size, const char *what);

/* Grows `*array` (capacity `*capacity` elements of `size` bytes) to hold at least `wanted`; geometric growth, old
 * content kept, new part uninitialised. Returns false with the error set and the array as it was. */
bool cs_grow(void *array, size_t *capacity, size_t wanted, size_t size, const char *what);

/* Copy of a string, NULL with the error set. */
char *cs_strdup(const char *text);

#endif
