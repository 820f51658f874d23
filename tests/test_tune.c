/* Tuning: what is measured is kept, used and read again; files that cannot be trusted are ignored. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "base/error.h"
#include "base/file.h"
#include "nn/gemm_internal.h"
#include "nn/tune.h"

#define check(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition))                                                                                              \
            fail_msg("%s: %s", #condition, cs_error());                                                                \
    } while (0)

static const nn_bench_product product = {.layout = NN_GEMM_NT, .m = 96, .n = 64, .k = 32};

/* A device with a cache folder of its own, and a product on it. */
typedef struct fixture {
    char folder[64];
    char *path; /* of the tuning file */
    vk_device *device;
    nn_gemm g;
} fixture;

static void open_device(fixture *f)
{
    f->device = vk_open(&(vk_params){.quiet = true, .cache_folder = f->folder, .profile = true});
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
    snprintf(f->folder, sizeof f->folder, "/tmp/csmoe-tune-XXXXXX");
    assert_non_null(mkdtemp(f->folder));
    open_device(f);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    fixture *f = *state;
    vk_close(&f->device);
    check(cs_remove_folder(f->folder));
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_choice, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_damaged, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_stale_and_wrong, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_unsuitable, set_up, tear_down),
        cmocka_unit_test(test_notes),
        cmocka_unit_test_setup_teardown(test_measure, set_up, tear_down),
    };
    return cmocka_run_group_tests_name("tune", tests, NULL, NULL);
}
