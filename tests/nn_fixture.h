/* What the tests of nn/ share: one device per program, a tape, a parameter set, checks that show the error. */
#ifndef TESTS_NN_FIXTURE_H
#define TESTS_NN_FIXTURE_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "nn/nn.h"
#include "tests/check.h"

static vk_device *device;

static inline int open_device(void **state)
{
    (void)state;
    device = vk_open(&(vk_params){.quiet = true, .cache_folder = ""});
    if (!device)
        fprintf(stderr, "%s\n", cs_error());
    return device ? 0 : -1;
}

/* Fails where the validation layer had something to say. */
static inline int close_device(void **state)
{
    (void)state;
    vk_close(&device);
    return vk_validation_messages() ? -1 : 0;
}

static inline uint64_t used_memory(void)
{
    return vk_memory_get(device).used;
}

/* The error must be there and mention `part`. */
static inline void assert_error(const char *part)
{
    if (!strstr(cs_error(), part))
        fail_msg("the error \"%s\" does not mention \"%s\"", cs_error(), part);
}

/* Standard normal values from a seed. */
static inline void fill_normal(float *values, size_t count, uint64_t seed)
{
    cs_random random = {.seed = seed, .stream = 77};
    for (size_t i = 0; i < count; i++)
        values[i] = cs_random_normal(&random);
}

#endif
