/* What matrix products do with their sums: activations, gates, slopes, addends, the sums of an affinity's terms, in
 * every type; gathered rows. */
#include "tests/gemm_fixture.h"

/* Epilogues, types and gathered rows, in all layouts, plain and grouped. */
static void test_epilogues(void **state)
{
    static const struct {
        enum nn_gemm_epilogue epilogue;
        enum nn_activation activation;
        enum nn_dtype a, b, c, other, extra;
        bool gather, accumulate;
    } rows[] = {
        {NN_GEMM_NONE, 0, NN_BF16, NN_BF16, NN_F32, 0, 0, false, true},
        {NN_GEMM_NONE, 0, NN_F16, NN_F16, NN_F16, 0, 0, true, false},
        {NN_GEMM_NONE, 0, NN_F32, NN_BF16, NN_BF16, 0, 0, true, true},
        {NN_GEMM_ACTIVATE, NN_SILU, NN_F32, NN_F32, NN_F32, 0, NN_F32, false, false},
        {NN_GEMM_ACTIVATE, NN_RELU, NN_BF16, NN_BF16, NN_BF16, 0, NN_BF16, true, false},
        {NN_GEMM_GATE, NN_SILU, NN_F32, NN_F32, NN_F32, NN_F32, NN_F32, true, true},
        {NN_GEMM_GATE, NN_SILU, NN_F16, NN_F32, NN_F16, NN_BF16, NN_F16, false, false},
        {NN_GEMM_SLOPE, NN_SILU, NN_F32, NN_F32, NN_F32, NN_F32, 0, false, false},
        {NN_GEMM_SLOPE, NN_RELU, NN_BF16, NN_F16, NN_BF16, NN_F16, 0, true, false},
        {NN_GEMM_ADD, 0, NN_F32, NN_F32, NN_F32, NN_F32, 0, true, false},
        {NN_GEMM_ADD, 0, NN_F16, NN_F16, NN_F32, NN_F16, 0, false, true},
    };
    static const uint32_t shapes[][3] = {{40, 72, 24}, {21, 34, 11}};
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (enum nn_gemm_layout layout = NN_GEMM_NT; layout <= NN_GEMM_TN; layout++) {
            size_t s = (i + layout) % 2;
            nn_gemm g = {.layout = layout, .m = shapes[s][0], .n = shapes[s][1], .k = shapes[s][2],
                         .a_type = rows[i].a, .b_type = rows[i].b, .c_type = rows[i].c,
                         .epilogue = rows[i].epilogue, .activation = rows[i].activation,
                         .other_type = rows[i].other, .extra_type = rows[i].extra,
                         .accumulate = rows[i].accumulate};
            trial t = make_trial_of(g, i % 2 ? GROUPED : PLAIN, rows[i].gather);
            try_two(&t, i + layout);
            free_trial(&t);
        }
}

/* Sums of an affinity's terms, of rows of whole eights and of fours. */
static void test_affinity_sums(void **state)
{
    static const struct {
        enum nn_affinity_kind kind;
        enum how how;
        uint32_t n;
        enum nn_dtype operands, result;
    } rows[] = {
        {NN_AFFINITY_SOFTPLUS, BATCHED, 72, NN_F32, NN_F32},
        {NN_AFFINITY_L2NORM, BATCHED, 36, NN_F16, NN_F16},
        {NN_AFFINITY_RELU, GROUPED, 72, NN_BF16, NN_BF16},
        {NN_AFFINITY_SIGMOID, SHARED_A, 36, NN_F32, NN_F32},
        {NN_AFFINITY_SILU, PLAIN, 40, NN_F32, NN_BF16},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        nn_gemm g = {.layout = NN_GEMM_NT, .m = 21, .n = rows[i].n, .k = 24, .a_type = rows[i].operands,
                     .b_type = rows[i].operands, .c_type = rows[i].result, .epilogue = NN_GEMM_AFFINITY,
                     .activation = rows[i].kind};
        trial t = make_trial_of(g, rows[i].how, false);
        try_two(&t, i);
        run_trial(&t, nn_gemm_plainest()->name);
        free_trial(&t);
    }
}

/* The same in parts: a batch and rows are halved, and their sums with them. */
static void test_affinity_parts(void **state)
{
    (void)state;
    for (int batched = 0; batched < 2; batched++) {
        nn_gemm g = {.layout = NN_GEMM_NT, .m = batched ? 64 : 200, .n = 40, .k = 16, .epilogue = NN_GEMM_AFFINITY,
                     .max_range = 16384};
        trial t = make_trial_of(g, batched ? BATCHED : PLAIN, false);
        assert_true(t.c_size * 4 > g.max_range);
        make_reference(&t);
        run_trial(&t, NULL);
        free_trial(&t);
    }
}

/* They need memory of f32, and columns and strides in whole fours. */
static void test_affinity_refused(void **state)
{
    static const struct {
        uint32_t n, c_stride;
        bool memory;
        enum nn_dtype extra;
    } rows[] = {{6, 0, true, NN_F32}, {8, 34, true, NN_F32}, {8, 0, false, NN_F32}, {8, 0, true, NN_F16}};
    static const float zeros[128];
    (void)state;
    vk_range memory = upload(zeros, 128, NN_F32);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        nn_gemm g = {.layout = NN_GEMM_NT, .m = 4, .n = rows[i].n, .k = 8, .a = memory, .b = memory, .c = memory,
                     .c_stride = rows[i].c_stride, .epilogue = NN_GEMM_AFFINITY, .extra_type = rows[i].extra};
        g.extra = rows[i].memory ? memory : (vk_range){0};
        assert_false(nn_gemm_run(device, &g));
        assert_non_null(strstr(cs_error(), "whole fours"));
    }
    vk_free(device, &memory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_epilogues),
        cmocka_unit_test(test_affinity_sums),
        cmocka_unit_test(test_affinity_parts),
        cmocka_unit_test(test_affinity_refused),
    };
    return cmocka_run_group_tests(tests, open_device, report_and_close);
}
