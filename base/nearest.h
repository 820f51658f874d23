/* "Did you mean": the nearest known name to a mistyped one. */
#ifndef BASE_NEAREST_H
#define BASE_NEAREST_H

#include <stddef.h>

/* Edits (insert, delete, replace, swap of neighbours; optimal string alignment) that turn `a` into `b`. Names longer
 * than 63 characters are compared by their first 63. */
size_t cs_edit_distance(const char *a, const char *b);

/* The nearest to `word` among `count` names, or NULL where none is near enough to be meant (about a third of its
 * letters wrong). `first` is the address of the first name; the next ones follow every `stride` bytes, so that any
 * table with a name column can be searched: cs_nearest(word, &rows[0].name, count, sizeof rows[0]). */
const char *cs_nearest(const char *word, const char *const *first, size_t count, size_t stride);

#endif
