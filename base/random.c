#include "base/random.h"

#include <math.h>

static void philox(const uint32_t counter[4], uint64_t seed, uint32_t out[4])
{
    uint32_t c[4] = {counter[0], counter[1], counter[2], counter[3]};
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c[0], p1 = (uint64_t)0xCD9E8D57u * c[2];
        uint32_t n0 = (uint32_t)(p1 >> 32) ^ c[1] ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c[3] ^ k1;
        c[1] = (uint32_t)p1;
        c[3] = (uint32_t)p0;
        c[0] = n0;
        c[2] = n2;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    for (int i = 0; i < 4; i++)
        out[i] = c[i];
}

uint32_t cs_random_u32(cs_random *r)
{
    uint64_t block = r->index / 4;
    uint32_t counter[4] = {(uint32_t)block, (uint32_t)(block >> 32), r->stream, 0}, out[4];
    philox(counter, r->seed, out);
    return out[r->index++ % 4];
}

float cs_random_float(cs_random *r)
{
    return (float)(cs_random_u32(r) >> 8) * 0x1p-24f;
}

uint32_t cs_random_below(cs_random *r, uint32_t n)
{
    uint32_t limit = (uint32_t)-n % n; /* 2^32 mod n: draws below it would favour the low values */
    for (;;) {
        uint64_t product = (uint64_t)cs_random_u32(r) * n;
        if ((uint32_t)product >= limit)
            return (uint32_t)(product >> 32);
    }
}

float cs_random_normal(cs_random *r)
{
    double u = ((double)cs_random_u32(r) + 1.0) * 0x1p-32, v = (double)cs_random_u32(r) * 0x1p-32;
    return (float)(sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v));
}

void cs_random_shuffle(cs_random *r, uint32_t *items, size_t n)
{
    for (size_t i = n; i > 1; i--) {
        uint32_t j = cs_random_below(r, (uint32_t)i), t = items[i - 1];
        items[i - 1] = items[j];
        items[j] = t;
    }
}

uint32_t cs_random_stream(const char *name)
{
    uint32_t h = 2166136261u;
    for (; *name; name++)
        h = (h ^ (uint8_t)*name) * 16777619u;
    return h | CS_STREAM_NAMED;
}
