/* The built-in data set: drawn scenes of coloured shapes with questions and answers, in LLaVA's format. */
#ifndef MULTIMODAL_SYNTH_H
#define MULTIMODAL_SYNTH_H

#include <stdbool.h>
#include <stdint.h>

typedef struct mm_synth_options {
    const char *folder;
    uint32_t images; /* for training; a tenth of it, at least one, comes on top for the test */
    uint64_t seed;
} mm_synth_options;

/* Pictures for testing that come with `images` pictures for training. */
uint32_t mm_synth_test_images(uint32_t images);

/* Writes <folder>/train.json, test.json and images/ (64x64 PNG), all of it or nothing: it is built in a folder beside
 * and renamed at the end. The same options give the same bytes. An existing folder is replaced only where it is empty
 * or was made by this function; anything else in it is an error and stays as it is. */
bool mm_synth_write(const mm_synth_options *options);

#endif
