/* Counter-based random numbers (Philox 4x32-10, Salmon et al. 2011): a draw is a pure function of (seed, stream,
 * index), so a checkpoint stores three integers and any thread can draw any number. */
#ifndef BASE_RANDOM_H
#define BASE_RANDOM_H

#include <stddef.h>
#include <stdint.h>

typedef struct cs_random {
    uint64_t seed;   /* of the run */
    uint32_t stream; /* of the purpose: one of CS_STREAM_* or a hash of a parameter's name */
    uint64_t index;  /* of the next draw */
} cs_random;

enum {
    CS_STREAM_SHUFFLE = 1,
    CS_STREAM_SCHEDULE,
    CS_STREAM_SAMPLE,
    CS_STREAM_SYNTH,
    CS_STREAM_AUGMENT,
};
#define CS_STREAM_NAMED 0x80000000u /* set in every stream that is a hash of a name */

uint32_t cs_random_u32(cs_random *r);
/* Uniform in [0, 1) with 24 bits, exact in float. */
float cs_random_float(cs_random *r);
/* Uniform in 0..n-1 without modulo bias; n >= 1. */
uint32_t cs_random_below(cs_random *r, uint32_t n);
/* Standard normal (Box-Muller; two draws each). */
float cs_random_normal(cs_random *r);
/* Fisher-Yates over n indices. */
void cs_random_shuffle(cs_random *r, uint32_t *items, size_t n);
/* A stream number for a name, in the CS_STREAM_NAMED half (FNV-1a). */
uint32_t cs_random_stream(const char *name);

#endif
