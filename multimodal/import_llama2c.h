/* Models of github.com/karpathy/llama2.c: weights (.bin, version 0) and tokenizer become a checkpoint folder. */
#ifndef MULTIMODAL_IMPORT_LLAMA2C_H
#define MULTIMODAL_IMPORT_LLAMA2C_H

#include <stdbool.h>
#include <stdint.h>

#include "vk/vk.h"

typedef struct mm_llama2c_shape {
    int32_t width, hidden, layers, heads, kv_heads, vocabulary, context;
    bool tied; /* the file says so by the sign of its vocabulary */
} mm_llama2c_shape;

/* `source`: the weights, with their tokenizer tok*.bin beside them, or the folder that holds both.
 * `target` is made; it must not exist. `*shape` tells what was read. */
bool mm_import_llama2c(const char *source, const char *target, vk_device *device, mm_llama2c_shape *shape);

#endif
