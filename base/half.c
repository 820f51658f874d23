#include "base/half.h"

#include <math.h>
#include <string.h>

static uint32_t bits_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static float value_of(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

uint16_t cs_f16_bits(float value)
{
    uint32_t sign = bits_of(value) >> 16 & 0x8000;
    if (isnan(value))
        return (uint16_t)(sign | 0x7e00);
    float size = fabsf(value);
    if (size >= 65520) /* half a unit beyond the largest, 65504 */
        return (uint16_t)(sign | 0x7c00);
    int exponent;
    frexpf(size, &exponent);
    /* Counted in units of the last place: 11 bits from the leading one down, or 2^-24 where subnormal. */
    int unit = size < 0x1p-14f ? -24 : exponent - 11;
    uint32_t units = (uint32_t)lrintf(ldexpf(size, -unit));
    /* `units` carries the leading one, which is 1 in the exponent field. */
    return (uint16_t)(sign | (((uint32_t)(unit + 24) << 10) + units));
}

uint16_t cs_bf16_bits(float value)
{
    uint32_t bits = bits_of(value);
    if (isnan(value))
        return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

float cs_f16_value(uint16_t bits)
{
    uint32_t exponent = bits >> 10 & 31, mantissa = bits & 1023, sign = (uint32_t)(bits >> 15) << 31;
    if (exponent == 0)
        return value_of(bits_of((float)mantissa / 16777216.0f) | sign);
    return value_of((exponent == 31 ? 255 : exponent + 112) << 23 | mantissa << 13 | sign);
}

float cs_bf16_value(uint16_t bits)
{
    return value_of((uint32_t)bits << 16);
}
