/* Tuning: what is measured is kept, used and read again; files that cannot be trusted are ignored, and variants whose
 * results are wrong. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "nn/gemm_check.h"
#include "nn/gemm_internal.h"
#include "nn/tune.h"
#include "tests/check.h"
#include "tests/folder_fixture.h"

static const nn_bench_product product = {.layout = NN_GEMM_NT, .m = 96, .n = 64, .k = 32};

/* A device with the test's folder for its cache, and a product on it. */
typedef struct fixture {
    char *path; /* of the tuning file */
    vk_device *device;
    nn_gemm g;
} fixture;

static void open_device(fixture *f)
{
    f->device = vk_open(&(vk_params){.quiet = true, .cache_folder = folder, .profile = true});
    check(f->device);
    f->g = (nn_gemm){.layout = product.layout, .m = product.m, .n = product.n, .k = product.k};
    vk_range *ranges[] = {&f->g.a, &f->g.b, &f->g.c};
    for (int i = 0; i < 3; i++)
        check((*ranges[i] = vk_alloc(f->device, 96 * 64 * 4, VK_MEMORY_DEVICE, "a test")).block);
}

static void reopen(fixture *f)
{
    vk_close(&f->device);
    open_device(f);
}

static int set_up(void **state)
{
    fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    assert_int_equal(make_folder(state), 0);
    open_device(f);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    fixture *f = *state;
    vk_close(&f->device);
    assert_int_equal(remove_folder(state), 0);
    free(f->path);
    free(f);
    assert_int_equal(vk_validation_messages(), 0);
    return 0;
}

static const char *chosen(fixture *f)
{
    const nn_gemm_variant *v = nn_gemm_choose(f->device, &f->g);
    check(v);
    return v->name;
}

/* A variant that can make the product and is not the one that the table gives it. */
static const char *other_variant(fixture *f)
{
    const char *taken = chosen(f);
    for (int i = 0; nn_gemm_variant_name(i); i++)
        if (strcmp(nn_gemm_variant_name(i), taken) &&
            nn_gemm_variant_suits(f->device, nn_gemm_variant_name(i), &f->g))
            return nn_gemm_variant_name(i);
    fail_msg("there is one variant only");
    return NULL;
}

static void keep(fixture *f, const char *variant)
{
    nn_bench_contest contest = {.product = product, .times = {{variant, 1000}}, .count = 1};
    free(f->path);
    f->path = NULL;
    check(nn_tune_keep(f->device, &contest, 1, &f->path));
}

static void test_choice(void **state)
{
    fixture *f = *state;
    const char *built_in = chosen(f), *other = other_variant(f);
    assert_null(nn_tune_choice(f->device, &f->g));
    keep(f, other);
    assert_string_equal(chosen(f), other);
    f->g.m = 100; /* about as many tokens */
    assert_string_equal(chosen(f), other);
    f->g.m = 20;
    assert_null(nn_tune_choice(f->device, &f->g));
    f->g.m = product.m;
    f->g.a_type = f->g.b_type = NN_F16;
    assert_null(nn_tune_choice(f->device, &f->g));
    reopen(f);
    assert_string_equal(chosen(f), other);
    check(nn_gemm_run(f->device, &f->g));
    keep(f, built_in);
    reopen(f);
    assert_string_equal(chosen(f), built_in);
}

static void test_damaged(void **state)
{
    static const char *const texts[] = {
        "", "{", "[]", "{\"driver_version\": 1}", "{\"driver_version\": \"new\", \"products\": []}",
    };
    fixture *f = *state;
    const char *built_in = chosen(f);
    keep(f, other_variant(f));
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        check(cs_write_file(f->path, texts[i], strlen(texts[i])));
        reopen(f);
        assert_string_equal(chosen(f), built_in);
    }
}

/* Rewrites one member of the file, or of its first product. */
static void change(fixture *f, const char *member, bool of_product, json_t *value)
{
    json_t *root = json_load_file(f->path, 0, NULL);
    assert_non_null(root);
    json_t *object = of_product ? json_array_get(json_object_get(root, "products"), 0) : root;
    assert_non_null(json_object_get(object, member));
    assert_int_equal(json_object_set_new(object, member, value), 0);
    assert_int_equal(json_dump_file(root, f->path, 0), 0);
    json_decref(root);
}

static void test_stale_and_wrong(void **state)
{
    fixture *f = *state;
    const char *built_in = chosen(f), *other = other_variant(f);
    const struct {
        const char *member;
        bool of_product;
        json_t *value;
    } changes[] = {
        {"driver_version", false, json_integer(4294967295)},
        {"driver_info", false, json_string("another driver")},
        {"layout", true, json_string("TT")},
        {"type", true, json_string("i32")},
        {"m", true, json_integer(-1)},
        {"n", true, json_string("many")},
        {"variant", true, json_string("a variant that is gone")},
        {"variant", true, json_integer(3)},
    };
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        keep(f, other);
        change(f, changes[i].member, changes[i].of_product, changes[i].value);
        reopen(f);
        assert_string_equal(chosen(f), built_in);
    }
}

/* A choice that cannot run the product at hand, as after a change of its alignment, is passed over. */
static void test_unsuitable(void **state)
{
    fixture *f = *state;
    const char *built_in = chosen(f), *unsuitable = NULL;
    for (int i = 0; nn_gemm_variant_name(i); i++)
        if (!nn_gemm_variant_suits(f->device, nn_gemm_variant_name(i), &f->g))
            unsuitable = nn_gemm_variant_name(i);
    assert_non_null(unsuitable); /* cooperative matrices have no f32 products */
    keep(f, unsuitable);
    assert_string_equal(nn_tune_choice(f->device, &f->g), unsuitable);
    assert_string_equal(chosen(f), built_in);
    check(nn_gemm_run(f->device, &f->g));
}

static void test_notes(void **state)
{
    (void)state;
    nn_tune_list list = {0};
    nn_gemm g = {.layout = NN_GEMM_TN, .m = 8, .n = 16, .k = 100};
    nn_tune_note(&list, &g);
    g.k = 128;
    nn_tune_note(&list, &g);
    assert_int_equal(list.count, 1);
    g.k = 129;
    nn_tune_note(&list, &g);
    g.groups = 4;
    nn_tune_note(&list, &g);
    g.b_type = NN_F16; /* mixed types are left out */
    nn_tune_note(&list, &g);
    assert_int_equal(list.count, 3);
    assert_false(list.failed);
    free(list.items);
}

static void test_measure(void **state)
{
    fixture *f = *state;
    nn_bench bench = {.device = f->device, .fewest = 2, .most = 3};
    nn_bench_contest contest;
    check(nn_bench_variants(&bench, &product, &contest));
    assert_true(contest.count >= 2);
    bool found = false;
    for (int i = 0; i < contest.count; i++) {
        assert_true(contest.times[i].ns > 0);
        assert_true(i == 0 || contest.times[i].ns >= contest.times[i - 1].ns);
        found |= !strcmp(contest.times[i].variant, contest.taken);
    }
    assert_true(found);
    assert_string_equal(contest.taken, chosen(f));
}

/* Two results on the device: equal, off by rounding, with one wrong element, with one that was never written. */
static void test_difference(void **state)
{
    fixture *f = *state;
    enum { COUNT = 300001, PLACE = 299999 }; /* more than is read at once */
    const struct {
        double value, least, most; /* of an element that should be 2 among ones */
    } rows[] = {{2, 0, 0}, {2.000002, 1e-7, 1e-6}, {2.03, 0.0099, 0.0101}, {0, 0.66, 0.67}, {NAN, INFINITY, INFINITY}};
    float *values = malloc(COUNT * sizeof *values);
    assert_non_null(values);
    for (size_t i = 0; i < COUNT; i++)
        values[i] = 1;
    values[PLACE] = 2;
    vk_range expected = vk_alloc(f->device, COUNT * 4, VK_MEMORY_DEVICE, "a test");
    vk_range got = vk_alloc(f->device, COUNT * 4, VK_MEMORY_DEVICE, "a test");
    check(expected.block && got.block && vk_upload(f->device, expected, values, COUNT * 4));
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        double difference;
        values[PLACE] = (float)rows[i].value;
        check(vk_upload(f->device, got, values, COUNT * 4));
        check(nn_gemm_difference(f->device, got, expected, NN_F32, COUNT, &difference));
        if (!(difference >= rows[i].least && difference <= rows[i].most))
            fail_msg("%g for 2: difference %g", rows[i].value, difference);
    }
    free(values);
}

/* What rounding may do to a value of 16 bits, and no more. */
static void test_difference_16_bits(void **state)
{
    static const struct {
        enum nn_dtype type;
        uint16_t one, next, over_next;
    } rows[] = {{NN_F16, 0x3c00, 0x3c01, 0x3c04}, {NN_BF16, 0x3f80, 0x3f81, 0x3f84}};
    fixture *f = *state;
    vk_range expected = f->g.a, got = f->g.b;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const uint16_t right[] = {rows[i].one, rows[i].one}, near[] = {rows[i].one, rows[i].next},
                       wrong[] = {rows[i].one, rows[i].over_next};
        double difference, allowed = nn_gemm_rounding(64, rows[i].type);
        expected.size = got.size = sizeof right;
        check(vk_upload(f->device, expected, right, sizeof right) && vk_upload(f->device, got, near, sizeof near));
        check(nn_gemm_difference(f->device, got, expected, rows[i].type, 2, &difference));
        assert_true(difference > 0 && difference <= allowed);
        check(vk_upload(f->device, got, wrong, sizeof wrong));
        check(nn_gemm_difference(f->device, got, expected, rows[i].type, 2, &difference));
        assert_true(difference > allowed);
    }
}

/* A sum without one of its terms, of random values, is not taken for a rounded one. */
static void test_rounding(void **state)
{
    (void)state;
    for (uint32_t terms = 1; terms <= 1 << 15; terms *= 2)
        assert_true(nn_gemm_rounding(terms, NN_F32) < 0.5 / sqrt(terms));
}

/* Proven variants pass the thorough comparison, plain and grouped. */
static void test_thorough(void **state)
{
    fixture *f = *state;
    static const enum nn_dtype types[] = {NN_F32, NN_F16, NN_BF16};
    int32_t offsets[] = {0, 20, 20, 32};
    vk_range ends = vk_alloc(f->device, sizeof offsets, VK_MEMORY_DEVICE, "a test");
    check(ends.block && vk_upload(f->device, ends, offsets, sizeof offsets));
    for (int i = 0; i < 6; i++) {
        nn_gemm g = f->g;
        nn_gemm_check trial;
        bool agrees = false;
        g.layout = (enum nn_gemm_layout)(i % 3);
        g.m = g.n = g.k = i < 3 ? 42 : 32;
        g.a_type = g.b_type = types[(i + i / 3) % 3];
        if (i >= 3)
            g.groups = 3, g.offsets = ends, g.b_stride = i == 5 ? 0 : 32 * 32, g.c_stride = i == 5 ? 32 * 32 : 0;
        check(nn_bench_fill(f->device, g.a, g.a_type, 96 * 64, 1));
        check(nn_bench_fill(f->device, g.b, g.b_type, 96 * 64, 2));
        check(nn_gemm_check_begin(&trial, f->device, &g));
        check(nn_gemm_check_variant(&trial, nn_gemm_built_in(vk_device_caps(f->device), &g)->name, true, &agrees));
        assert_true(agrees);
        nn_gemm_check_end(&trial);
    }
}

#ifdef HAVE_SHADERC
/* A kernel that writes nothing stands for gemm_shuffle: the fastest there is, and what CPU drivers get. */
static void test_refused(void **state)
{
    static const char nothing[] = "#version 450\nlayout(local_size_x_id = 0, local_size_x = 8) in;\nvoid main() {}\n";
    fixture *f = *state;
    char source[512], path[96];
    nn_bench bench = {.device = f->device, .fewest = 2, .most = 3};
    nn_bench_contest contest;
    const char *shaders = in_folder("shaders");
    check(cs_make_folder(shaders));
    for (int i = 0; i < 2; i++) {
        const char *name = i ? "include" : "gemm_tiled.comp";
        snprintf(source, sizeof source, "%s/shaders/%s", getenv("CSMOE_SOURCE"), name);
        snprintf(path, sizeof path, "%s/%s", shaders, name);
        assert_int_equal(symlink(source, path), 0);
    }
    snprintf(path, sizeof path, "%s/gemm_shuffle.comp", shaders);
    check(cs_write_file(path, nothing, sizeof nothing - 1));
    setenv("CSMOE_SHADER_DIR", shaders, 1);
    bool ok = nn_bench_variants(&bench, &product, &contest);
    unsetenv("CSMOE_SHADER_DIR");
    check(ok);
    assert_true(contest.count > 0);
    for (int i = 0; i < contest.count; i++)
        assert_null(strstr(contest.times[i].variant, "gemm_shuffle"));
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_choice, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_damaged, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_stale_and_wrong, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_unsuitable, set_up, tear_down),
        cmocka_unit_test(test_notes),
        cmocka_unit_test_setup_teardown(test_measure, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_difference, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_difference_16_bits, set_up, tear_down),
        cmocka_unit_test(test_rounding),
        cmocka_unit_test_setup_teardown(test_thorough, set_up, tear_down),
#ifdef HAVE_SHADERC
        cmocka_unit_test_setup_teardown(test_refused, set_up, tear_down),
#endif
    };
    return cmocka_run_group_tests_name("tune", tests, NULL, NULL);
}
