/* The timing behind csmoe bench, on sizes that take no time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/error.h"
#include "nn/bench_moe.h"

static vk_device *device;
static nn_bench bench;

static int open_device(void **state)
{
    (void)state;
    device = vk_open(&(vk_params){.quiet = true, .cache_folder = "", .profile = true});
    if (!device)
        fail_msg("%s", cs_error());
    bench = nn_bench_on(device, true);
    return 0;
}

static int close_device(void **state)
{
    (void)state;
    vk_close(&device);
    return 0;
}

static void check_timing(const nn_timing *t)
{
    assert_true(t->runs >= bench.fewest);
    assert_true(t->best > 0);
    assert_true(t->best <= t->median);
    assert_true(t->deviation >= 0);
}

static void test_product(void **state)
{
    (void)state;
    nn_timing t;
    if (!nn_bench_gemm(&bench, &(nn_bench_product){NN_GEMM_TN, NN_F32, 32, 16, 24}, 1, &t))
        fail_msg("%s", cs_error());
    check_timing(&t);
    assert_true(t.flops == 2.0 * 32 * 16 * 24);
    assert_true(t.bytes == 4.0 * (32 * 24 + 16 * 24 + 32 * 16));
}

static void test_peaks(void **state)
{
    (void)state;
    for (int peak = 0; peak < NN_PEAKS; peak++) {
        nn_timing t;
        if (!nn_bench_peak(&bench, (enum nn_peak)peak, &t))
            fail_msg("%s", cs_error());
        if (!t.runs && peak != NN_PEAK_F32 && peak < NN_PEAK_READ) /* what not every device has */
            continue;
        check_timing(&t);
        assert_true((t.flops > 0) == (peak < NN_PEAK_READ));
        assert_true((t.bytes > 0) == (peak >= NN_PEAK_READ));
    }
}

/* Products of several layouts and sizes in turns, over memory that they share. */
static void test_products(void **state)
{
    (void)state;
    static const nn_bench_product p[] = {{NN_GEMM_NT, NN_BF16, 40, 16, 24, 5},
                                         {NN_GEMM_NN, NN_BF16, 40, 16, 24, 5},
                                         {NN_GEMM_TN, NN_BF16, 40, 16, 24, 5},
                                         {NN_GEMM_NT, NN_BF16, 64, 48, 8, 0},
                                         {NN_GEMM_TN, NN_BF16, 40, 16, 8, .batch = 3}};
    enum { COUNT = sizeof p / sizeof *p };
    nn_timing t[COUNT];
    if (!nn_bench_gemm(&bench, p, COUNT, t))
        fail_msg("%s", cs_error());
    for (int i = 0; i < COUNT; i++) {
        check_timing(&t[i]);
        assert_int_equal(t[i].runs, t[0].runs);
        assert_true(t[i].flops == 2.0 * p[i].m * p[i].n * p[i].k * (p[i].batch ? p[i].batch : 1));
    }
    /* TN: one B and a C of each group; NN: the other way round. */
    assert_true(t[1].bytes == 2.0 * (40 * 24 + 5 * 16 * 24) + 4.0 * 40 * 16);
    assert_true(t[2].bytes == 2.0 * (40 * 24 + 16 * 24) + 4.0 * 5 * 40 * 16);
    assert_true(t[4].bytes == 3 * (2.0 * (40 * 8 + 16 * 8) + 4.0 * 40 * 16));
}

static void test_operator(void **state)
{
    (void)state;
    const nn_op *op = nn_op_find("linear");
    nn_timing forward, backward;
    if (!nn_bench_case(&bench, op, &op->cases[0], &forward, &backward))
        fail_msg("%s", cs_error());
    check_timing(&forward);
    assert_int_equal(backward.runs, forward.runs);
    assert_true(backward.flops == 2 * forward.flops);
    op = nn_op_find("moe_plan"); /* not differentiable */
    if (!nn_bench_case(&bench, op, &op->cases[0], &forward, &backward))
        fail_msg("%s", cs_error());
    check_timing(&forward);
    assert_int_equal(backward.runs, 0);
}

static void test_mixture_of_experts(void **state)
{
    (void)state;
    uint64_t peaks[2];
    for (int half = 0; half < 2; half++) {
        const nn_bench_moe_shape shape = {2, 8, 16, 8, 4, 2, half ? NN_BF16 : NN_F32};
        nn_bench_moe_result results[NN_BENCH_MOE_KINDS], *wanted[NN_BENCH_MOE_KINDS];
        for (int k = 0; k < NN_BENCH_MOE_KINDS; k++)
            wanted[k] = &results[k];
        if (!nn_bench_moe(device, &shape, 5, wanted))
            fail_msg("%s", cs_error());
        for (int k = 0; k < NN_BENCH_MOE_KINDS; k++) {
            check_timing(&results[k].time);
            assert_true(results[k].time.flops == 12.0 * 16 * 16 * 8 * (k >= NN_BENCH_COMPETING ? 4 : 2));
            assert_true(results[k].dispatches > 0);
            assert_true(results[k].peak_bytes > 0);
        }
        peaks[half] = results[NN_BENCH_COMPETING].peak_bytes;
    }
    assert_true(peaks[1] < peaks[0]);
}

static void test_nothing_is_left(void **state)
{
    (void)state;
    assert_int_equal(vk_memory_get(device).used, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_product),
        cmocka_unit_test(test_peaks),
        cmocka_unit_test(test_products),
        cmocka_unit_test(test_operator),
        cmocka_unit_test(test_mixture_of_experts),
        cmocka_unit_test(test_nothing_is_left),
    };
    return cmocka_run_group_tests(tests, open_device, close_device);
}
