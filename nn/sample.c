#include "nn/sample.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

/* The best candidates: all whose rank is above `rank`, and of those at it, in order of index, as many as `room` holds
 * (counted in candidates or in probability). */
typedef struct cut {
    uint64_t rank;
    double room;
    bool by_mass;
} cut;

typedef struct candidates {
    const float *logits;
    int64_t n;
    float top, temperature;
    cut k, p;
} candidates;

static const cut everything = {0, INFINITY, false};

/* An integer that orders as the logits do; NaN is the lowest. */
static uint64_t rank_of(float logit)
{
    uint32_t bits;
    if (isnan(logit))
        return 0;
    logit += 0.0f; /* -0 and 0 are equal */
    memcpy(&bits, &logit, sizeof bits);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

static double mass_of(const candidates *c, float logit)
{
    if (isnan(logit))
        return 0;
    return logit == c->top ? 1 : exp((logit - c->top) / c->temperature);
}

/* To be asked for the candidates in order of index, on a copy of the cut. */
static bool admits(cut *c, uint64_t rank, double mass)
{
    if (rank != c->rank)
        return rank > c->rank;
    if (c->room <= 0)
        return false;
    c->room -= c->by_mass ? mass : 1;
    return true;
}

/* Probability (unnormalised) of what both cuts admit. */
static double total_mass(const candidates *c)
{
    cut k = c->k, p = c->p;
    double sum = 0;
    for (int64_t i = 0; i < c->n; i++) {
        uint64_t rank = rank_of(c->logits[i]);
        double mass = mass_of(c, c->logits[i]);
        if (admits(&k, rank, mass) && admits(&p, rank, mass))
            sum += mass;
    }
    return sum;
}

/* The cut that admits the best of what is admitted now until `target` is reached: a radix selection, a byte of the rank
 * at a time from the highest, which needs no memory and no sorting. */
static cut select_best(const candidates *c, bool by_mass, double target)
{
    cut result = {0, target, by_mass};
    for (int shift = 24; shift >= 0; shift -= 8) {
        double bins[256] = {0};
        cut k = c->k, p = c->p;
        for (int64_t i = 0; i < c->n; i++) {
            uint64_t rank = rank_of(c->logits[i]);
            double mass = mass_of(c, c->logits[i]);
            if (admits(&k, rank, mass) && admits(&p, rank, mass) && rank >> (shift + 8) == result.rank)
                bins[rank >> shift & 255] += by_mass ? mass : 1;
        }
        int b = 255;
        while (b > 0 && bins[b] < result.room)
            result.room -= bins[b--];
        result.rank = result.rank << 8 | (uint64_t)b;
    }
    return result;
}

static int32_t greedy(const float *logits, int64_t n)
{
    int64_t best = 0;
    for (int64_t i = 1; i < n; i++)
        if (rank_of(logits[i]) > rank_of(logits[best]))
            best = i;
    return (int32_t)best;
}

int32_t nn_sample(const float *logits, int64_t n, const nn_sampling *s, cs_random *r)
{
    int32_t best = greedy(logits, n);
    if (!(s->temperature > 0))
        return best;
    candidates c = {logits, n, logits[best], s->temperature, everything, everything};
    if (s->top_k > 0 && s->top_k < n)
        c.k = select_best(&c, false, s->top_k);
    if (s->top_p > 0 && s->top_p < 1)
        c.p = select_best(&c, true, s->top_p * total_mass(&c));

    double point = cs_random_float(r) * total_mass(&c);
    int32_t chosen = best; /* rounding can leave a rest: then the last one admitted */
    cut k = c.k, p = c.p;
    for (int64_t i = 0; i < n && point >= 0; i++) {
        uint64_t rank = rank_of(logits[i]);
        double mass = mass_of(&c, logits[i]);
        if (!admits(&k, rank, mass) || !admits(&p, rank, mass) || mass == 0)
            continue;
        chosen = (int32_t)i;
        point -= mass;
    }
    return chosen;
}
