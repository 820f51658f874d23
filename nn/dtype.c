#include "nn/dtype.h"

#include <string.h>

#include "base/half.h"

bool nn_is_half(enum nn_dtype type)
{
    return type == NN_F16 || type == NN_BF16;
}

bool nn_is_float(enum nn_dtype type)
{
    return type != NN_I32;
}

uint64_t nn_dtype_size(enum nn_dtype type)
{
    return nn_is_half(type) ? 2 : 4;
}

const char *nn_dtype_name(enum nn_dtype type)
{
    static const char *const name[] = {[NN_F32] = "f32", [NN_I32] = "i32", [NN_F16] = "f16", [NN_BF16] = "bf16"};
    return name[type];
}

void nn_narrow(enum nn_dtype type, const float *from, size_t count, uint16_t *to)
{
    for (size_t i = 0; i < count; i++)
        to[i] = type == NN_F16 ? cs_f16_bits(from[i]) : cs_bf16_bits(from[i]);
}

void nn_widen(enum nn_dtype type, const uint16_t *from, size_t count, float *to)
{
    for (size_t i = 0; i < count; i++)
        to[i] = type == NN_F16 ? cs_f16_value(from[i]) : cs_bf16_value(from[i]);
}

uint32_t nn_word_of(enum nn_dtype type, float value)
{
    uint32_t word;
    memcpy(&word, &value, sizeof word);
    if (nn_is_half(type)) {
        uint16_t half;
        nn_narrow(type, &value, 1, &half);
        word = (uint32_t)half << 16 | half;
    }
    return word;
}
