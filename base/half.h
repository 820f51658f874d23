/* 16-bit floats on the host: IEEE binary16 and bfloat16. Rounding is to nearest, ties to even; what is too large
 * becomes infinite; a NaN stays one. */
#ifndef BASE_HALF_H
#define BASE_HALF_H

#include <stdint.h>

uint16_t cs_f16_bits(float value);
uint16_t cs_bf16_bits(float value);
float cs_f16_value(uint16_t bits);
float cs_bf16_value(uint16_t bits);

#endif
