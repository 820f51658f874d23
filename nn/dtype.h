/* Values of any float type on the host. */
#ifndef NN_DTYPE_H
#define NN_DTYPE_H

#include "nn/nn.h"

/* Between floats and 16-bit values (NN_F16 or NN_BF16). */
void nn_narrow(enum nn_dtype type, const float *from, size_t count, uint16_t *to);
void nn_widen(enum nn_dtype type, const uint16_t *from, size_t count, float *to);
/* The word that fills memory of that type with `value`. */
uint32_t nn_word_of(enum nn_dtype type, float value);

#endif
