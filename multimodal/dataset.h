/* Data in LLaVA's format: a JSON array, or JSON lines, of
 *
 *   {"id": "7", "image": "images/7.png", "conversations": [{"from": "human", "value": "<image>\nHow many circles?"},
 *                                                          {"from": "gpt", "value": "two"}, ...]}
 *
 * `id` is a string or an integer; `image` is left out in a sample of text only. human and gpt alternate, human first. A
 * sample with a picture has exactly one <image>, in its first question; as LLaVA does, the mark is taken out, the
 * question's ends are trimmed, and the template puts the picture in front of it. */
#ifndef MULTIMODAL_DATASET_H
#define MULTIMODAL_DATASET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "multimodal/template.h"

typedef struct mm_sample {
    const char *id;
    int32_t image;  /* index into the data set's images, -1 for text only */
    uint32_t index; /* place in the file, from 0 */
    uint32_t line;  /* where it begins in the file, from 1 */
    uint32_t turn_count;
    const mm_turn *turns;
} mm_sample;

typedef struct mm_dataset {
    char *path;
    mm_sample *samples;
    size_t count;
    char **images; /* the different pictures' paths, each once */
    size_t image_count;
    size_t bad;    /* samples left out for a fault */
    size_t faults; /* a sample may have several */
    size_t turns;  /* of all samples together */
    struct mm_dataset_memory *memory;
} mm_dataset;

typedef struct mm_dataset_params {
    const char *image_root; /* relative pictures are looked up here; NULL: the file's own folder */
    bool skip_bad;          /* leave out a sample with a fault, with a warning, instead of failing */
    bool decode;            /* decode every picture instead of only looking whether it is there */
    bool text_only;         /* only the words are wanted: pictures are not looked for */
    size_t limit;           /* only the file's first so many samples without a fault in their words; 0 = all */
    /* If set, gets every fault, several per sample, as one line naming file, place and fault; samples with faults are
     * left out and none of them makes the opening fail. */
    void (*fault)(void *user, const char *message);
    void *user;
} mm_dataset_params;

/* Reads the file. Fails at the first fault unless `skip_bad` or `fault` is set; always when the file cannot be read
 * or, with skip_bad, when it has a syntax error outside of a line of its own or no sample is left. */
mm_dataset *mm_dataset_open(const char *path, const mm_dataset_params *params);
void mm_dataset_close(mm_dataset *d); /* NULL is fine */

#endif
