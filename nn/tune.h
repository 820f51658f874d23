/* Measured choices: which variant of the matrix product is fastest on a device, shape by shape. They are kept in a
 * file per device beside the pipeline cache and read when the device makes its first product; without one, or for
 * shapes that it does not have, the table in nn/gemm_variants.c decides. */
#ifndef NN_TUNE_H
#define NN_TUNE_H

#include "nn/bench.h"

/* Different products. Free `items`. */
typedef struct nn_tune_list {
    nn_bench_product *items;
    size_t count, capacity;
    bool failed; /* out of memory: the error is set */
} nn_tune_list;

/* An nn_gemm_observer: adds the product to the nn_tune_list `with`, unless its like is there. Batched products and
 * those of mixed types are left to the table. */
void nn_tune_note(void *with, const nn_gemm *g);

/* Makes the fastest variants the device's choices, from now on and, by a file in its cache folder, the next time.
 * `*path`: that file; free() it. Earlier choices for other products stay. Fails without a cache folder. */
bool nn_tune_keep(vk_device *device, const nn_bench_contest *contests, size_t count, char **path);

/* The variant chosen for a product, NULL for none. A file that is damaged, or of another driver, is ignored with one
 * notice. Products whose number of tokens (rows; terms in TN) rounds up to the same power of two share a choice. */
const char *nn_tune_choice(vk_device *device, const nn_gemm *g);

#endif
