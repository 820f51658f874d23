/* Results of csmoe bench: from rows to files and back, in every format. */
#include <math.h>

#include "tests/data_fixture.h"
#include "tests/nn_fixture.h"
#include "tools/bench_report.h"

static vk_caps caps_of(const char *name, enum vk_type type)
{
    vk_caps caps = {.type = type, .api_version = 1u << 22 | 3 << 12 | 230};
    snprintf(caps.name, sizeof caps.name, "%s", name);
    snprintf(caps.driver, sizeof caps.driver, "radv");
    snprintf(caps.driver_info, sizeof caps.driver_info, "Mesa 1.2");
    return caps;
}

static void add(json_t *entry, enum bench_part part, const char *op, const char *name, const char *type, double ms,
                double flops, double bytes)
{
    const nn_timing t = {5, ms * 1e6, ms * 0.5e6, 1e4, flops, bytes};
    bench_row row = bench_row_of(part, op, name, "", type, &t);
    bench_set_roof(&row, entry);
    assert_true(bench_add(entry, &row));
}

/* A device that is `speed` times as fast as one of 100 GFLOP/s (of the best run) and 10 GB/s. */
static json_t *make_device(const char *name, enum vk_type type, double speed)
{
    const vk_caps caps = caps_of(name, type);
    json_t *entry = bench_device_new(&caps);
    assert_non_null(entry);
    add(entry, BENCH_PEAKS, "peak", nn_peak_names[NN_PEAK_F32], "f32", 2 / speed, 100e6, 0);
    add(entry, BENCH_PEAKS, "peak", nn_peak_names[NN_PEAK_COPY], "", 2 / speed, 0, 10e6);
    add(entry, BENCH_OPS, "gemm NT", "8 x 8, \"odd\" | <b>", "f32", 4 / speed, 200e6, 1e6);
    add(entry, BENCH_OPS, "softmax", "[64, 8]", "f32", 4 / speed, 0, 10e6);
    add(entry, BENCH_MOE, "routed", "1,2,3,4,5,6", "f32", 10 / speed, 100e6, 0);
    return entry;
}

static json_t *make_doc(int devices)
{
    static const char *const names[] = {"slow <card>", "fast card", "fastest card"};
    json_t *doc = json_array();
    for (int d = 0; d < devices; d++)
        assert_int_equal(json_array_append_new(doc, make_device(names[d], d ? VK_TYPE_DISCRETE : VK_TYPE_CPU, 1 + d)),
                         0);
    return doc;
}

static char *saved(const json_t *doc, const char *name)
{
    size_t size;
    check(bench_save(doc, in_folder(name)));
    char *text = cs_read_file(in_folder(name), 1 << 20, &size);
    check(text);
    return text;
}

static void assert_has(const char *text, const char *part)
{
    if (!strstr(text, part))
        fail_msg("'%s' is missing in:\n%s", part, text);
}

/* ---- cases ------------------------------------------------------------------------------------------------------- */

static void test_roof(void **state)
{
    (void)state;
    json_t *doc = make_doc(1);
    const json_t *entry = json_array_get(doc, 0), *results = json_object_get(entry, "results");
    assert_true(bench_peak_gflops(entry, "f32") == 100); /* by the best run */
    assert_true(bench_peak_gbytes(entry) == 10);
    const bench_row product = bench_row_read(json_array_get(results, 2)),
                    rows = bench_row_read(json_array_get(results, 3));
    assert_true(fabs(product.figure[BENCH_ROOF_PERCENT] - 50) < 1e-9); /* 2 ms of arithmetic took 4 */
    assert_true(fabs(rows.figure[BENCH_ROOF_PERCENT] - 25) < 1e-9);    /* 1 ms of memory took 4 */
    assert_true(isnan(rows.figure[BENCH_GFLOPS]));
    json_decref(doc);
}

static void test_matrix_roof(void **state)
{
    (void)state;
    json_t *doc = make_doc(1), *entry = json_array_get(doc, 0), *results = json_object_get(entry, "results");
    add(entry, BENCH_PEAKS, "peak", nn_peak_names[NN_PEAK_MATRIX_F16], "f16", 2, 400e6, 0);
    add(entry, BENCH_OPS, "gemm NT", "16-bit", "f16", 4, 200e6, 1e6);
    add(entry, BENCH_OPS, "gemm NT", "16-bit", "bf16", 4, 200e6, 1e6);
    const size_t last = json_array_size(results) - 1;
    const bench_row f16 = bench_row_read(json_array_get(results, last - 1)),
                    bf16 = bench_row_read(json_array_get(results, last));
    assert_true(fabs(f16.figure[BENCH_ROOF_PERCENT] - 12.5) < 1e-9);
    assert_true(fabs(bf16.figure[BENCH_ROOF_PERCENT] - 50) < 1e-9); /* no matrices of bf16: the f32 peak */
    char *page = saved(doc, "matrix.html");
    assert_has(page, "stroke-dasharray");
    free(page);
    json_decref(doc);
}

static void test_round_trip(void **state)
{
    (void)state;
    json_t *doc = make_doc(3);
    free(saved(doc, "three.json"));
    json_t *back = bench_load(in_folder("three.json"));
    check(back);
    assert_true(json_array_size(back) == 3);
    assert_true(bench_is_cpu(json_array_get(back, 0)) && !bench_is_cpu(json_array_get(back, 1)));
    for (size_t d = 0; d < 3; d++) {
        const json_t *results = json_object_get(json_array_get(doc, d), "results"), *result;
        size_t i;
        json_array_foreach(results, i, result)
        {
            const bench_row row = bench_row_read(result);
            const json_t *other = bench_find(json_array_get(back, d), &row);
            assert_non_null(other);
            const bench_row read = bench_row_read(other);
            for (int k = 0; k < BENCH_FIGURES; k++)
                assert_true(isnan(row.figure[k]) ? isnan(read.figure[k])
                                                 : fabs(row.figure[k] - read.figure[k]) <= 1e-8 * fabs(row.figure[k]));
        }
    }
    json_decref(back);
    json_decref(doc);
}

static void test_comparison(void **state)
{
    (void)state;
    json_t *doc = make_doc(3);
    size_t count;
    char text[BENCH_CELL];
    bench_row *rows = bench_all_rows(doc, &count);
    check(rows);
    assert_int_equal(count, 5); /* each once */
    assert_string_equal(bench_compared(doc, 0, &rows[2], text), "4.000 ms");
    assert_string_equal(bench_compared(doc, 1, &rows[2], text), "2.000 ms (2.00x)");
    assert_string_equal(bench_compared(doc, 2, &rows[0], text), "300.000 GFLOP/s (3.00x)");
    bench_row missing = rows[2];
    missing.text[BENCH_CASE] = "another";
    assert_string_equal(bench_compared(doc, 1, &missing, text), "");
    free(rows);
    char *markdown = saved(doc, "c.md");
    assert_has(markdown, "| softmax [64, 8] f32 | 4.000 ms | 2.000 ms (2.00x) | 1.333 ms (3.00x) |");
    free(markdown);
    json_decref(doc);
}

static void test_markdown(void **state)
{
    (void)state;
    json_t *doc = make_doc(1);
    char *text = saved(doc, "one.md");
    assert_has(text, "> **CPU DRIVER");
    assert_has(text, "Vulkan 1.3.230");
    assert_has(text, "| gemm NT | 8 x 8, \"odd\" \\| <b> |");
    free(text);
    json_decref(doc);
}

static void test_csv(void **state)
{
    (void)state;
    json_t *doc = make_doc(2);
    char *text = saved(doc, "two.csv");
    assert_has(text, "device,driver,");
    assert_has(text, ",true,ops,gemm NT,\"8 x 8, \"\"odd\"\" | <b>\",,f32,5,4,");
    assert_has(text, "\r\nfast card,");
    free(text);
    json_decref(doc);
}

static void test_html(void **state)
{
    (void)state;
    json_t *doc = make_doc(2);
    char *text = saved(doc, "two.html");
    assert_has(text, "<svg");
    assert_has(text, "class=\"roof\"");
    assert_has(text, "class=\"point\"");
    assert_has(text, "slow &lt;card&gt;: CPU DRIVER");
    assert_has(text, "8 x 8, &quot;odd&quot; | &lt;b&gt;");
    assert_null(strstr(text, "<script"));
    assert_null(strstr(text, "http"));
    assert_null(strstr(text, "nan"));
    free(text);
    json_decref(doc);
}

static void test_bad_files(void **state)
{
    (void)state;
    static const struct {
        const char *text, *error;
    } cases[] = {
        {"", "bad.json:1:"},
        {"[{\"format\": \"csmoe bench 1\", ", "bad.json:1:"},
        {"{\"a\": 1}", "bad.json: not results of csmoe bench"},
        {"[]", "bad.json: not results of csmoe bench"},
        {"[{\"device\": \"x\"}]", "bad.json: not results of csmoe bench: entry 1"},
        {"[{\"format\": \"csmoe bench 1\"}]", "bad.json: damaged: entry 1 has no text 'device'"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_text("bad.json", cases[i].text);
        assert_null(bench_load(in_folder("bad.json")));
        assert_error(cases[i].error);
    }
    assert_null(bench_load(in_folder("missing.json")));
    assert_error("missing.json");
}

static void test_damaged_results(void **state)
{
    (void)state;
    static const char *const keys[] = {"part", "case", "ms", "runs"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        json_t *doc = make_doc(1), *results = json_object_get(json_array_get(doc, 0), "results");
        assert_int_equal(json_object_set_new(json_array_get(results, 2), keys[i], json_true()), 0);
        free(saved(doc, "damaged.json"));
        assert_null(bench_load(in_folder("damaged.json")));
        assert_error("damaged.json: damaged: entry 1, result 3 has no usable");
        json_decref(doc);
    }
    json_t *doc = make_doc(1), *results = json_object_get(json_array_get(doc, 0), "results");
    assert_int_equal(json_object_set_new(json_array_get(results, 0), "part", json_string("pieces")), 0);
    free(saved(doc, "damaged.json"));
    assert_null(bench_load(in_folder("damaged.json")));
    json_decref(doc);
}

static void test_unknown_ending(void **state)
{
    (void)state;
    assert_true(bench_output_known("a.b/x.html"));
    assert_false(bench_output_known("a.csv/x"));
    assert_error("a.csv/x: the ending says");
    assert_false(bench_output_known("results.txt"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_roof),      cmocka_unit_test(test_matrix_roof),     cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_comparison),
        cmocka_unit_test(test_markdown), cmocka_unit_test(test_csv),             cmocka_unit_test(test_html),
        cmocka_unit_test(test_bad_files), cmocka_unit_test(test_damaged_results), cmocka_unit_test(test_unknown_ending),
    };
    return cmocka_run_group_tests(tests, make_folder, close_folder);
}
