/* Matrix products: every layout, plain, batched, summed and grouped, aligned and ragged, by every variant that
 * suits. */
#include "tests/gemm_fixture.h"

static void test_shapes(void **state)
{
    static const uint32_t shapes[][3] = {{40, 36, 24}, {64, 128, 32}, {7, 10, 14}, {37, 33, 45}, {1, 8, 4}};
    (void)state;
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        for (enum nn_gemm_layout layout = NN_GEMM_NT; layout <= NN_GEMM_TN; layout++)
            for (enum how how = PLAIN; how < HOWS; how++) {
                trial t = make_trial(layout, how, shapes[s][0], shapes[s][1], shapes[s][2], (s + how) % 2);
                assert_true(try_variants(&t, false) > 0);
                free_trial(&t);
            }
}

/* 16-bit operands of whole tiles and of ragged ones, in all that a product can be of. */
static void test_16_bits(void **state)
{
    static const uint32_t shapes[][3] = {{64, 128, 64}, {40, 24, 72}, {21, 34, 11}};
    (void)state;
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        for (enum nn_gemm_layout layout = NN_GEMM_NT; layout <= NN_GEMM_TN; layout++)
            for (enum how how = PLAIN; how < HOWS; how++) {
                enum nn_dtype type = (layout + how) % 2 ? NN_BF16 : NN_F16;
                nn_gemm g = {.layout = layout, .m = shapes[s][0], .n = shapes[s][1], .k = shapes[s][2],
                             .a_type = type, .b_type = type, .accumulate = how % 2};
                trial t = make_trial_of(g, how, false);
                try_two(&t, s + layout + how);
                free_trial(&t);
            }
}

/* Few columns, and few behind whole tiles, in so many rows that a workgroup makes whole rows of tiles: gemm_shuffle has
 * narrower ones for these. */
static void test_narrow_tiles(void **state)
{
    static const struct {
        enum nn_gemm_layout layout;
        uint32_t n;
        enum how how;
        enum nn_gemm_epilogue epilogue;
        enum nn_dtype operands, result;
        bool gather, accumulate;
    } rows[] = {
        {NN_GEMM_NT, 40, PLAIN, NN_GEMM_NONE, NN_F32, NN_F32, false, true},
        {NN_GEMM_NT, 48, GROUPED, NN_GEMM_GATE, NN_BF16, NN_BF16, true, false},
        {NN_GEMM_NT, 16, BATCHED, NN_GEMM_NONE, NN_F32, NN_F32, false, false},
        {NN_GEMM_NT, 8, PLAIN, NN_GEMM_NONE, NN_F16, NN_F16, true, false},
        {NN_GEMM_NN, 40, GROUPED, NN_GEMM_SLOPE, NN_F32, NN_F32, false, false},
        {NN_GEMM_NN, 48, PLAIN, NN_GEMM_ADD, NN_F16, NN_F32, false, true},
        {NN_GEMM_NN, 16, GROUPED, NN_GEMM_ACTIVATE, NN_F32, NN_F32, false, false},
        {NN_GEMM_NN, 8, PLAIN, NN_GEMM_NONE, NN_BF16, NN_F32, false, false},
        {NN_GEMM_TN, 40, GROUPED, NN_GEMM_NONE, NN_BF16, NN_F32, true, false},
        {NN_GEMM_TN, 48, SUMMED, NN_GEMM_NONE, NN_F32, NN_F32, false, true},
        {NN_GEMM_TN, 16, PLAIN, NN_GEMM_NONE, NN_F16, NN_F32, true, false},
        {NN_GEMM_TN, 8, GROUPED, NN_GEMM_NONE, NN_F32, NN_F32, false, false},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        nn_gemm g = {.layout = rows[i].layout, .m = 1040, .n = rows[i].n, .k = 40,
                     .a_type = rows[i].operands, .b_type = rows[i].operands, .c_type = rows[i].result,
                     .epilogue = rows[i].epilogue, .activation = NN_SILU, .other_type = rows[i].result,
                     .extra_type = rows[i].result, .accumulate = rows[i].accumulate};
        trial t = make_trial_of(g, rows[i].how, rows[i].gather);
        if (!nn_gemm_variant_suits(device, "gemm_shuffle_wide", &t.g)) {
            free_trial(&t);
            skip();
        }
        make_reference(&t);
        run_trial(&t, NULL);
        free_trial(&t);
    }
}

/* Many tiles, by every variant that suits. */
static void test_many_tiles(void **state)
{
    static const enum nn_dtype types[] = {NN_F32, NN_F16, NN_BF16};
    (void)state;
    for (enum nn_gemm_layout layout = NN_GEMM_NT; layout <= NN_GEMM_TN; layout++) {
        nn_gemm g = {.layout = layout, .m = 515, .n = 500, .k = 20, .a_type = types[layout], .b_type = types[layout]};
        trial t = make_trial_of(g, PLAIN, false);
        assert_true(try_variants(&t, true) > 1);
        free_trial(&t);
    }
}

/* Long rows, whole texels and not, which take more terms in a turn; more terms than lavapipe's longest loop. */
static void test_many_terms(void **state)
{
    static const struct {
        enum nn_gemm_layout layout;
        uint32_t m, n, k;
        bool accumulate;
    } rows[] = {
        {NN_GEMM_NT, 20, 36, 1036, false},
        {NN_GEMM_NT, 9, 10, 1030, true},
        {NN_GEMM_TN, 4, 4, 300000, true},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        trial t = make_trial(rows[i].layout, PLAIN, rows[i].m, rows[i].n, rows[i].k, rows[i].accumulate);
        assert_true(try_variants(&t, false) > 0);
        free_trial(&t);
    }
}

/* In parts, as where a device cannot bind whole operands. */
static void test_parts(void **state)
{
    (void)state;
    for (enum nn_gemm_layout layout = NN_GEMM_NT; layout <= NN_GEMM_TN; layout++)
        for (enum how how = PLAIN; how <= SUMMED; how++) {
            trial t = make_trial(layout, how, 200, 64, 320, layout == NN_GEMM_NN);
            t.g.max_range = 84 << 10;
            uint64_t before = vk_counters_get(device).dispatches;
            int variants = try_variants(&t, false);
            assert_true(variants > 0);
            assert_true(vk_counters_get(device).dispatches > before + (uint64_t)variants);
            free_trial(&t);
        }
}

/* Sums in parts that are made side by side, as GPUs do where results are small. */
static void test_terms_side_by_side(void **state)
{
    (void)state;
    for (int half = 0; half < 2; half++) {
        nn_gemm g = {.layout = NN_GEMM_TN, .m = 4, .n = 30, .k = 96, .parts = 4, .accumulate = half,
                     .a_type = half ? NN_BF16 : NN_F32, .b_type = half ? NN_BF16 : NN_F32};
        trial t = make_trial_of(g, PLAIN, false);
        drop_bias(&t);
        uint64_t before = vk_counters_get(device).dispatches, used = used_memory();
        make_reference(&t);
        run_trial(&t, NULL);
        assert_int_equal(vk_counters_get(device).dispatches, before + 2);
        assert_int_equal(used_memory(), used);
        free_trial(&t);
    }
}

/* Weights, or their gradients, of several groups at once are more than a device binds. */
static void test_group_parts(void **state)
{
    (void)state;
    for (enum nn_gemm_layout layout = NN_GEMM_NT; layout <= NN_GEMM_TN; layout++) {
        uint32_t rows = layout == NN_GEMM_TN ? 64 : 32, terms = layout == NN_GEMM_TN ? 32 : 64;
        trial t = make_trial(layout, GROUPED, rows, 64, terms, layout == NN_GEMM_TN);
        t.g.max_range = 20 << 10;
        t.g.variant = "gemm_tiled_32"; /* others take B as texels, which have another limit */
        uint64_t before = vk_counters_get(device).dispatches;
        make_reference(&t);
        run_trial(&t, t.g.variant);
        assert_int_equal(vk_counters_get(device).dispatches, before + GROUPS);
        free_trial(&t);
    }
}

/* Matrices of whole workgroups: what takes which device and product, and that nothing but tuning chooses them. */
static void test_workgroup_matrices(void **state)
{
    static const vk_caps caps = {
        .type = VK_TYPE_DISCRETE,
        .subgroup_size = 32, .subgroup_min = 32, .subgroup_max = 32, .subgroup_control = true,
        .max_invocations = 1024, .max_shared_bytes = 48 << 10, .texel_align = 16, .float16 = true,
        .matrix = {{16, 16, 16, false}}, .matrix_count = 1,
        .matrix2 = {{32, 16, 16, 128, false}, {32, 32, 16, 256, false}}, .matrix2_count = 2,
        .matrix2_max_size = 1024, .matrix2_shared_bytes = 32 << 10,
    };
    vk_caps no_grain = caps, no_room = caps, small = caps;
    nn_gemm plain = {.m = 512, .n = 512, .k = 512, .a_type = NN_F16, .b_type = NN_F16};
    nn_gemm single = plain, brain = plain, ragged = plain, unaligned = plain, mixed = plain, exact = plain;
    const struct {
        const char *what;
        const vk_caps *caps;
        const nn_gemm *g;
        bool suits;
    } rows[] = {
        {"plain", &caps, &plain, true},
        {"rows of any length", &caps, &ragged, true},
        {"one operand of f32", &caps, &mixed, true},
        {"one operand of f32 that is not to be rounded", &caps, &exact, false},
        {"entries that begin anywhere", &caps, &unaligned, false},
        {"both operands of f32", &caps, &single, false},
        {"a type that the device lacks", &caps, &brain, false},
        {"other numbers of invocations", &no_grain, &plain, false},
        {"no shared memory left", &no_room, &plain, false},
        {"matrices that are too small", &small, &plain, false},
    };
    const nn_gemm_variant *v = nn_gemm_find("gemm_coopmat2_128");
    (void)state;
    no_grain.matrix2_count = 1;
    no_room.matrix2_shared_bytes = 45 << 10;
    small.matrix2_max_size = 64;
    single.a_type = single.b_type = NN_F32;
    brain.a_type = brain.b_type = NN_BF16;
    ragged.k = ragged.n = 511;
    mixed.b_type = exact.b_type = NN_F32;
    exact.exact = true;
    unaligned.batch = 2, unaligned.b_stride = 511 * 512 + 1;
    assert_non_null(v);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (v->suits(rows[i].caps, v, rows[i].g) != (rows[i].suits && vk_has_kernel("gemm_coopmat2_f16")))
            fail_msg("%s: should %s", rows[i].what, rows[i].suits ? "do" : "not do");
        assert_false(nn_gemm_built_in(rows[i].caps, rows[i].g)->unproven);
    }
    assert_string_equal(nn_gemm_built_in(&caps, &exact)->kernel, "gemm_tiled");
}

/* The larger a device, the smaller the tiles of a product that would leave it idle. */
static void test_tiles_by_cores(void **state)
{
    static const struct {
        uint32_t cores;
        const char *variant;
    } rows[] = {{0, "gemm_tiled_64"}, {20, "gemm_tiled_128"}, {84, "gemm_tiled_64"}, {132, "gemm_tiled_32"}};
    const nn_gemm g = {.m = 1024, .n = 512, .k = 512};
    vk_caps caps = {.type = VK_TYPE_DISCRETE, .max_invocations = 1024, .max_shared_bytes = 48 << 10};
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        caps.cores = rows[i].cores;
        assert_string_equal(nn_gemm_built_in(&caps, &g)->name, rows[i].variant);
    }
}

static void test_faults(void **state)
{
    (void)state;
    float zero[16] = {0};
    vk_range range = upload_bytes(zero, sizeof zero);
    nn_gemm g = {.m = 4, .n = 4, .k = 4, .a = range, .b = range, .c = range, .variant = "fastest"};
    assert_false(nn_gemm_run(device, &g));
    assert_non_null(strstr(cs_error(), "there is no variant 'fastest'"));
    g.variant = NULL;
    g.k = 1000;
    assert_false(nn_gemm_run(device, &g));
    assert_non_null(strstr(cs_error(), "A has "));
    g.k = 4;
    g.max_range = 32;
    assert_false(nn_gemm_run(device, &g));
    assert_non_null(strstr(cs_error(), "larger than"));
    g.max_range = 0;
    g.batch = g.groups = 2;
    assert_false(nn_gemm_run(device, &g));
    g.batch = g.groups = 0;
    g.n = 3;
    g.c_type = NN_BF16;
    assert_false(nn_gemm_run(device, &g));
    assert_non_null(strstr(cs_error(), "even number of columns"));
    vk_free(device, &range);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shapes),
        cmocka_unit_test(test_16_bits),
        cmocka_unit_test(test_narrow_tiles),
        cmocka_unit_test(test_many_tiles),
        cmocka_unit_test(test_many_terms),
        cmocka_unit_test(test_parts),
        cmocka_unit_test(test_terms_side_by_side),
        cmocka_unit_test(test_group_parts),
        cmocka_unit_test(test_workgroup_matrices),
        cmocka_unit_test(test_tiles_by_cores),
        cmocka_unit_test(test_faults),
    };
    return cmocka_run_group_tests(tests, open_device, report_and_close);
}
