/* Golden replay: cases of the supported modes agree, a changed one does not, a stray file is judged by its own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/error.h"
#include "base/file.h"
#include "nn/verify.h"
#include "tests/folder_fixture.h"

static vk_device *device;
static char *goldens;

static int set_up(void **state)
{
    goldens = cs_join(getenv("CSMOE_SHARED"), "goldens");
    device = vk_open(&(vk_params){.quiet = true});
    return goldens && device ? make_folder(state) : -1;
}

static int tear_down(void **state)
{
    vk_close(&device);
    free(goldens);
    return remove_folder(state);
}

static nn_golden_cases *need_cases(void)
{
    nn_golden_cases *cases = NULL;
    if (!cs_is_folder(goldens)) {
        print_message("%s is absent\n", goldens);
        skip();
    }
    assert_true(nn_golden_cases_read(goldens, &cases));
    assert_non_null(cases);
    return cases;
}

static void verify(const nn_golden_cases *cases, const char *folder, const char *name, nn_golden *g,
                   nn_verify_result *r)
{
    char *path = cs_join(folder, name);
    nn_safetensors *st = nn_safetensors_open(path);
    if (!st || !nn_golden_describe(cases, st, g) || (g->kind != NN_GOLDEN_UNSUPPORTED && !nn_verify(device, st, g, r)))
        fail_msg("%s", cs_error());
    nn_safetensors_close(&st);
    free(path);
}

/* One case of each kind: tools/test.sh replays all of them by csmoe verify. */
static void supported_modes_agree(void **state)
{
    (void)state;
    static const char *const names[] = {
        "vit_router_swiglu_big_coefs_b2n4d8h12e4k2",
        "vit_router_gelu_b2n5d12h20e3k3",
        "vit_compete_softplus_hybrid_gelu_b1n33d64h128e8k2",
        "vit_compete_l2norm_hybrid_gelu_b2n5d10h14e4k2_f64",
        "vit_compete_softplus_gelu_projector_b2n6d20h14e4k2dout14",
        "vit_infer_return_ids_gelu_b2n4d8h12e4k2",
        "schedule_right_shift_recount_l5s24",
        "schedule_paper_like_l28s1000",
    };
    nn_golden_cases *cases = need_cases();
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char file[128];
        nn_golden g;
        nn_verify_result r = {0};
        snprintf(file, sizeof file, "%s.safetensors", names[i]);
        verify(cases, goldens, file, &g, &r);
        if (!r.passed)
            fail_msg("%s: %s differs by %g, %g allowed", names[i], r.worst, r.error, r.limit);
    }
    nn_golden_cases_free(&cases);
}

static void other_modes_are_unsupported(void **state)
{
    (void)state;
    static const char *const names[] = {"vit_xmoe_gelu_b2n6d16h24e4k2", "pre_compete_relu_nobias_b2n6d16h12e8k3",
                                        "v1_compete_relu_bias_t24d16h20e8k2", "vit_router_cosine_gelu_b2n4d8h12e4k2",
                                        "vit_router_norm_sigmoid_gelu_b2n4d8h12e4k2"};
    nn_golden_cases *cases = need_cases();
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char file[128];
        nn_golden g;
        nn_verify_result r;
        snprintf(file, sizeof file, "%s.safetensors", names[i]);
        verify(cases, goldens, file, &g, &r);
        assert_int_equal(g.kind, NN_GOLDEN_UNSUPPORTED);
    }
    nn_golden_cases_free(&cases);
}

/* A copy of a golden file, one byte of the first element of `tensor` changed: 1e-4 or so relative. */
static void copy_changed(const char *name, const char *tensor)
{
    char *from = cs_join(goldens, name), *to = cs_join(folder, name);
    nn_safetensors *st = nn_safetensors_open(from);
    assert_non_null(st);
    size_t size;
    char *bytes = cs_read_file(from, 1 << 24, &size);
    assert_non_null(bytes);
    if (tensor) {
        const nn_st_tensor *t = nn_safetensors_find(st, tensor);
        assert_non_null(t);
        bytes[t->offset + 1] ^= 0x10;
    }
    assert_true(cs_write_file(to, bytes, size));
    nn_safetensors_close(&st);
    free(bytes);
    free(from);
    free(to);
}

static void a_changed_tensor_is_found(void **state)
{
    (void)state;
    static const char *const tensors[] = {
        "output",      "grad.x",          "grad.gate.weight", "grad.experts.1.w2",    "grad_aux.gate.weight",
        "loss.router", "affinity_scores", "selected_experts", "router.mixing_weights"};
    const char *name = "vit_compete_softplus_hybrid_gelu_b2n7d16h32e4k2.safetensors";
    nn_golden_cases *cases = need_cases();
    for (size_t i = 0; i < sizeof tensors / sizeof tensors[0]; i++) {
        nn_golden g;
        nn_verify_result r;
        copy_changed(name, tensors[i]);
        verify(cases, folder, name, &g, &r);
        assert_false(r.passed);
        assert_string_equal(r.worst, tensors[i]);
    }
    nn_golden_cases_free(&cases);
}

static void a_file_without_its_cases_is_judged_by_itself(void **state)
{
    (void)state;
    const char *name = "vit_router_swiglu_b2n7d16h32e4k2.safetensors";
    nn_golden_cases *cases = need_cases(), *none;
    nn_golden_cases_free(&cases);
    copy_changed(name, NULL);
    assert_true(nn_golden_cases_read(folder, &none));
    assert_null(none);
    nn_golden g;
    nn_verify_result r;
    verify(none, folder, name, &g, &r);
    assert_false(g.listed);
    assert_int_equal(g.ffn, NN_FFN_SWIGLU);
    assert_true(r.passed);
}

static void broken_cases_are_refused(void **state)
{
    (void)state;
    char *path = cs_join(folder, "cases.json");
    nn_golden_cases *cases;
    assert_true(cs_write_file(path, "{\"cases\": [\n1,, 2]}", 19));
    assert_false(nn_golden_cases_read(folder, &cases));
    assert_non_null(strstr(cs_error(), "cases.json:2:"));
    assert_true(cs_write_file(path, "{}", 2));
    assert_false(nn_golden_cases_read(folder, &cases));
    unlink(path);
    free(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(supported_modes_agree),
        cmocka_unit_test(other_modes_are_unsupported),
        cmocka_unit_test(a_changed_tensor_is_found),
        cmocka_unit_test(a_file_without_its_cases_is_judged_by_itself),
        cmocka_unit_test(broken_cases_are_refused),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
