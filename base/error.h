/* The one error idiom: a function that can fail returns false (or NULL) after saying why with cs_fail(). */
#ifndef BASE_ERROR_H
#define BASE_ERROR_H

#include <stdbool.h>

/* Long enough for a path and a sentence about it; a longer message is cut, never overrun. */
enum { CS_ERROR_SIZE = 2048 };

#if defined(__GNUC__)
#define CS_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#else
#define CS_PRINTF(fmt, args)
#endif

/* Stores the message as this thread's current error, replacing an earlier one, and returns false so that
 * `return cs_fail("...")` reads as one thought; a function that returns a pointer writes `return cs_fail(...), NULL`.
 * The message says what was being done, to which file or option, and what is wrong; no trailing newline or period. */
bool cs_fail(const char *fmt, ...) CS_PRINTF(1, 2);

/* Puts "<context>: " before the current error and returns false: for a caller that knows the file or the sample. */
bool cs_fail_in(const char *fmt, ...) CS_PRINTF(1, 2);

/* This thread's current error, never NULL; "" where none. Valid until this thread's next cs_fail*(). */
const char *cs_error(void);

/* For a clean-up after a failure, which may fail itself: the current error, to be given to cs_restore_error(), which
 * makes it the current one again and returns false. */
typedef struct cs_kept_error {
    char message[CS_ERROR_SIZE];
} cs_kept_error;
cs_kept_error cs_keep_error(void);
bool cs_restore_error(const cs_kept_error *kept);

#endif
