/* nn/sample: greedy choice, temperature, top-k and top-p against distributions computed by sorting. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/random.h"
#include "nn/sample.h"

enum { N = 9, DRAWS = 20000 };

static void greedy_takes_the_lowest_index(void **state)
{
    (void)state;
    const float logits[] = {-1, 3, 0, 3, 2}, nan_first[] = {NAN, -INFINITY, -7}, zeros[] = {-0.0f, 0.0f};
    const nn_sampling s = {.temperature = 0};
    cs_random r = {.seed = 1, .stream = CS_STREAM_SAMPLE};
    assert_int_equal(nn_sample(logits, 5, &s, &r), 1);
    assert_int_equal(nn_sample(nan_first, 3, &s, &r), 2);
    assert_int_equal(nn_sample(zeros, 2, &s, &r), 0);
    assert_int_equal(nn_sample(logits, 1, &s, &r), 0);
    assert_int_equal(r.index, 0); /* nothing was drawn */
}

/* Probabilities by definition: sort by (logit, index), cut, normalise. */
static void expected_distribution(const float *logits, const nn_sampling *s, double *p)
{
    int order[N], kept = 0;
    double sum = 0, share = 0;
    for (int i = 0; i < N; i++) {
        int at = i;
        for (; at > 0 && logits[order[at - 1]] < logits[i]; at--)
            order[at] = order[at - 1];
        order[at] = i;
        p[i] = 0;
    }
    int k = s->top_k > 0 && s->top_k < N ? s->top_k : N;
    for (int i = 0; i < k; i++)
        sum += exp(logits[order[i]] / s->temperature);
    for (; kept < k && (s->top_p <= 0 || s->top_p >= 1 || share < s->top_p); kept++)
        share += exp(logits[order[kept]] / s->temperature) / sum;
    for (int i = 0; i < kept; i++)
        p[order[i]] = exp(logits[order[i]] / s->temperature) / sum / share;
}

static void check_distribution(const float *logits, const nn_sampling *s)
{
    double p[N];
    int counts[N] = {0};
    cs_random r = {.seed = 5, .stream = CS_STREAM_SAMPLE};
    expected_distribution(logits, s, p);
    for (int i = 0; i < DRAWS; i++)
        counts[nn_sample(logits, N, s, &r)]++;
    assert_int_equal(r.index, DRAWS);
    for (int i = 0; i < N; i++) {
        double deviation = sqrt(p[i] * (1 - p[i]) * DRAWS);
        if (p[i] == 0)
            assert_int_equal(counts[i], 0);
        assert_true(fabs(counts[i] - p[i] * DRAWS) <= 5 * deviation + 1e-6);
    }
}

static const float logits[N] = {0.5f, -2, 1.5f, 0.5f, -INFINITY, 1.5f, 0, 0.5f, -0.25f};

static void temperatures(void **state)
{
    (void)state;
    check_distribution(logits, &(nn_sampling){.temperature = 1});
    check_distribution(logits, &(nn_sampling){.temperature = 0.3f});
    check_distribution(logits, &(nn_sampling){.temperature = 4});
}

static void best_k(void **state)
{
    (void)state;
    for (int k = 1; k <= N + 1; k++) /* 3 and 4 cut through equal logits */
        check_distribution(logits, &(nn_sampling){.temperature = 1, .top_k = k});
}

static void nucleus(void **state)
{
    (void)state;
    const float shares[] = {1e-6f, 0.2f, 0.35f, 0.5f, 0.7f, 0.9f, 0.999f, 1};
    for (size_t i = 0; i < sizeof shares / sizeof *shares; i++) {
        check_distribution(logits, &(nn_sampling){.temperature = 1, .top_p = shares[i]});
        check_distribution(logits, &(nn_sampling){.temperature = 0.7f, .top_k = 4, .top_p = shares[i]});
    }
}

static void bad_logits(void **state)
{
    (void)state;
    const float odd[] = {NAN, INFINITY, 3, INFINITY}, none[] = {NAN, NAN};
    cs_random r = {.seed = 2, .stream = CS_STREAM_SAMPLE};
    const nn_sampling s = {.temperature = 1, .top_k = 3, .top_p = 0.9f};
    for (int i = 0; i < 50; i++) {
        int32_t t = nn_sample(odd, 4, &s, &r);
        assert_true(t == 1 || t == 3);
    }
    assert_int_equal(nn_sample(none, 2, &s, &r), 0);
}

static void seed_decides(void **state)
{
    (void)state;
    const nn_sampling s = {.temperature = 2};
    cs_random a = {.seed = 7, .stream = CS_STREAM_SAMPLE}, b = a, c = {.seed = 8, .stream = CS_STREAM_SAMPLE};
    int different = 0;
    for (int i = 0; i < 100; i++) {
        int32_t t = nn_sample(logits, N, &s, &a);
        assert_int_equal(nn_sample(logits, N, &s, &b), t);
        different += nn_sample(logits, N, &s, &c) != t;
    }
    assert_true(different > 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(greedy_takes_the_lowest_index), cmocka_unit_test(temperatures), cmocka_unit_test(best_k),
        cmocka_unit_test(nucleus), cmocka_unit_test(bad_logits), cmocka_unit_test(seed_decides),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
