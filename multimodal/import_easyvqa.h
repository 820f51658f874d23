/* easy-VQA (github.com/vzhou842/easy-VQA) as LLaVA-format data: pictures of one coloured shape, short questions. */
#ifndef MULTIMODAL_IMPORT_EASYVQA_H
#define MULTIMODAL_IMPORT_EASYVQA_H

#include <stdbool.h>
#include <stddef.h>

typedef struct mm_import_counts {
    size_t samples, turns;
} mm_import_counts;

/* Turns `source`/{train,test}/{questions.json,images/} into `target`/{train,test}.json, a sample per picture with its
 * questions as turns in file order, and copies the pictures to `target`/images/{train,test}/. The target appears whole
 * or not at all; it must not exist, or be an empty folder. `counts` is [2]: train, test. */
bool mm_import_easyvqa(const char *source, const char *target, mm_import_counts counts[2]);

#endif
