/* nn/safetensors: what is written is read back; the rules of the header, broken one by one; another project's file. */
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
#include "nn/safetensors.h"
#include "tests/folder_fixture.h"

static char *path;

static int set_up(void **state)
{
    if (make_folder(state) != 0)
        return -1;
    path = in_folder("x.safetensors");
    return 0;
}

/* Writes a file with this header and `bytes` of zero data; header_length < 0: the true one. */
static void write_raw(const char *header, int64_t header_length, size_t bytes)
{
    static const char zeros[256];
    uint64_t length = header_length < 0 ? strlen(header) : (uint64_t)header_length;
    cs_writer *w = cs_writer_open(path);
    assert_non_null(w);
    assert_true(cs_writer_put(w, &length, 8));
    assert_true(cs_writer_put(w, header, strlen(header)));
    assert_true(cs_writer_put(w, zeros, bytes));
    assert_true(cs_writer_commit(w));
}

static void assert_refused(const char *why)
{
    nn_safetensors *st = nn_safetensors_open(path);
    assert_null(st);
    if (strncmp(cs_error(), path, strlen(path)) != 0 || !strstr(cs_error(), why))
        fail_msg("'%s' does not name the file and '%s'", cs_error(), why);
}

static void written_is_read_back(void **state)
{
    (void)state;
    const double doubles[2] = {1.0 / 3, -2e300};
    const float floats[6] = {1, 2.5f, -3, 0, 1e-40f, 6e37f};
    const int32_t ints[3] = {-7, 0, 1 << 30};
    const uint8_t flags[5] = {0, 1, 1, 0, 255};
    nn_st_writer *w = nn_safetensors_create(path);
    assert_non_null(w);
    assert_true(nn_safetensors_add_metadata(w, "format", "test \"quoted\""));
    assert_true(nn_safetensors_declare(w, "d", NN_ST_F64, 1, (const int64_t[]){2}));
    assert_true(nn_safetensors_declare(w, "f", NN_ST_F32, 2, (const int64_t[]){2, 3}));
    assert_true(nn_safetensors_declare(w, "i", NN_ST_I32, 1, (const int64_t[]){3}));
    assert_true(nn_safetensors_declare(w, "none", NN_ST_F32, 2, (const int64_t[]){0, 4}));
    assert_true(nn_safetensors_declare(w, "u", NN_ST_U8, 1, (const int64_t[]){5}));
    assert_false(nn_safetensors_declare(w, "u", NN_ST_U8, 1, (const int64_t[]){5}));
    assert_true(nn_safetensors_put(w, doubles, sizeof doubles));
    assert_true(nn_safetensors_put(w, floats, 8)); /* a tensor in two pieces */
    assert_true(nn_safetensors_put(w, floats + 2, sizeof floats - 8));
    assert_true(nn_safetensors_put(w, ints, sizeof ints));
    assert_false(nn_safetensors_put(w, flags, 6));
    assert_false(nn_safetensors_declare(w, "late", NN_ST_U8, 1, (const int64_t[]){5}));
    assert_true(nn_safetensors_put(w, flags, 5));
    assert_true(nn_safetensors_commit(w));

    nn_safetensors *st = nn_safetensors_open(path);
    assert_non_null(st);
    assert_int_equal(nn_safetensors_count(st), 5);
    assert_string_equal(nn_safetensors_metadata(st, "format"), "test \"quoted\"");
    assert_null(nn_safetensors_metadata(st, "other"));
    assert_null(nn_safetensors_find(st, "other"));
    const nn_st_tensor *d = nn_safetensors_find(st, "d"), *f = nn_safetensors_at(st, 1);
    assert_int_equal(d->offset % 8, 0);
    assert_string_equal(f->name, "f");
    assert_int_equal(f->count, 6);
    assert_ptr_equal(nn_safetensors_need(st, "f", 2, (const int64_t[]){2, 3}), f);
    assert_null(nn_safetensors_need(st, "f", 2, (const int64_t[]){3, 2}));
    assert_non_null(strstr(cs_error(), "[2, 3], wanted [3, 2]"));

    double doubles_back[2];
    float floats_back[6], rounded[2];
    int32_t ints_back[3], flags_back[5];
    assert_true(nn_safetensors_read_f64(st, d, doubles_back));
    assert_memory_equal(doubles_back, doubles, sizeof doubles);
    assert_true(nn_safetensors_read_f32(st, f, floats_back));
    assert_memory_equal(floats_back, floats, sizeof floats);
    assert_true(nn_safetensors_read_f32(st, d, rounded));
    assert_true(rounded[0] == 1.0f / 3);
    assert_true(nn_safetensors_read_i32(st, nn_safetensors_find(st, "i"), ints_back));
    assert_memory_equal(ints_back, ints, sizeof ints);
    assert_true(nn_safetensors_read_i32(st, nn_safetensors_find(st, "u"), flags_back));
    assert_int_equal(flags_back[4], 255);
    assert_false(nn_safetensors_read_i32(st, f, ints_back));
    assert_non_null(strstr(cs_error(), "tensor 'f'"));
    assert_false(nn_safetensors_read_f32(st, nn_safetensors_find(st, "i"), floats_back));
    nn_safetensors_close(&st);
    assert_null(st);
}

static void short_types_are_widened(void **state)
{
    (void)state;
    const uint16_t halves[] = {0x3c00, 0xc000, 0x0001, 0x7bff, 0x7c00, 0x8000}, brains[] = {0x3f80, 0xc040};
    const int64_t longs[] = {-5, (int64_t)1 << 31};
    nn_st_writer *w = nn_safetensors_create(path);
    assert_true(nn_safetensors_declare(w, "l", NN_ST_I64, 1, (const int64_t[]){2}));
    assert_true(nn_safetensors_declare(w, "scalar", NN_ST_I64, 0, NULL));
    assert_true(nn_safetensors_declare(w, "h", NN_ST_F16, 1, (const int64_t[]){6}));
    assert_true(nn_safetensors_declare(w, "b", NN_ST_BF16, 1, (const int64_t[]){2}));
    assert_true(nn_safetensors_put(w, longs, sizeof longs) && nn_safetensors_put(w, longs, 8));
    assert_true(nn_safetensors_put(w, halves, sizeof halves) && nn_safetensors_put(w, brains, sizeof brains));
    assert_true(nn_safetensors_commit(w));

    nn_safetensors *st = nn_safetensors_open(path);
    assert_non_null(st);
    float h[6], b[2];
    int32_t i[2];
    assert_true(nn_safetensors_read_f32(st, nn_safetensors_find(st, "h"), h));
    assert_true(h[0] == 1 && h[1] == -2 && h[2] == 0x1p-24f && h[3] == 65504 && h[4] > 1e38f && 1 / h[5] < 0);
    assert_true(nn_safetensors_read_f32(st, nn_safetensors_find(st, "b"), b));
    assert_true(b[0] == 1 && b[1] == -3);
    assert_true(nn_safetensors_read_i32(st, nn_safetensors_find(st, "scalar"), i));
    assert_int_equal(i[0], -5);
    assert_false(nn_safetensors_read_i32(st, nn_safetensors_find(st, "l"), i));
    assert_non_null(strstr(cs_error(), "element 1"));
    nn_safetensors_close(&st);
}

static void a_half_written_file_does_not_appear(void **state)
{
    (void)state;
    unlink(path);
    nn_st_writer *w = nn_safetensors_create(path);
    assert_true(nn_safetensors_declare(w, "f", NN_ST_F32, 1, (const int64_t[]){2}));
    assert_true(nn_safetensors_put(w, "abcd", 4));
    assert_false(nn_safetensors_commit(w));
    assert_false(cs_is_file(path));
    w = nn_safetensors_create(path);
    nn_safetensors_abort(w);
    assert_false(cs_is_file(path));
    nn_safetensors_abort(NULL);
}

static void each_broken_header_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *header;
        int64_t length;
        size_t bytes;
        const char *why;
    } bad[] = {
        {"{}", 100000001, 0, "more than the 100000000"},
        {"{}", 3, 0, "truncated"},
        {"{}", INT64_MAX, 0, "more than"},
        {" {}", -1, 0, "begin with '{'"},
        {"[]", -1, 0, "begin with '{'"},
        {"", -1, 0, "begin with '{'"},
        {"{", -1, 0, "header, byte"},
        {"{}x", -1, 0, "header, byte"},
        {"{\"a\":1}", -1, 0, "'a'"},
        {"{\"__metadata__\":[]}", -1, 0, "__metadata__"},
        {"{\"__metadata__\":{\"k\":1}}", -1, 0, "'k'"},
        {"{}", -1, 1, "behind the last tensor"},
        {"{\"a\":{\"shape\":[1],\"data_offsets\":[0,4]}}", -1, 4, "'a': no dtype"},
        {"{\"a\":{\"dtype\":\"F33\",\"shape\":[1],\"data_offsets\":[0,4]}}", -1, 4, "'a': unknown dtype 'F33'"},
        {"{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", -1, 4, "'a': no shape"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}", -1, 4, "'a': a size"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1.0],\"data_offsets\":[0,4]}}", -1, 4, "'a': a size"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,4]}}", -1, 4, "'a': 9 dim"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,4]}}", -1, 4,
         "'a': the shape"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387905],\"data_offsets\":[0,4]}}", -1, 4, "'a': 4 bytes"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]}}", -1, 4, "'a': 4 bytes"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", -1, 4, "'a': data_offsets"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", -1, 4, "'a': data_offsets"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]}}", -1, 4, "'a': data_offsets"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[-4,0]}}", -1, 4, "'a': data_offsets"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", -1, 4, "'a': data_offsets"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", -1, 8, "'a': its data begin after a hole"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", -1, 8, "4 bytes behind"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
         "\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", -1, 8, "'b': its data overlap"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
         "\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", -1, 8, "duplicate"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        write_raw(bad[i].header, bad[i].length, bad[i].bytes);
        assert_refused(bad[i].why);
    }
    assert_true(cs_write_file(path, "1234567", 7));
    assert_refused("too short");
    unlink(path);
    assert_refused("cannot open");
    assert_null(nn_safetensors_open(folder));
}

static void order_in_the_header_is_free(void **state)
{
    (void)state;
    write_raw("{\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]},"
              "\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}   ", -1, 8);
    nn_safetensors *st = nn_safetensors_open(path);
    assert_non_null(st);
    assert_string_equal(nn_safetensors_at(st, 0)->name, "b");
    nn_safetensors_close(&st);
}

static void a_file_of_another_project_is_read(void **state)
{
    (void)state;
    char *file = cs_join(getenv("CSMOE_SHARED"), "data/safetensors-sample/burn_mnist_cnn.safetensors");
    assert_non_null(file);
    if (!cs_is_file(file)) {
        print_message("%s is absent\n", file);
        free(file);
        skip();
    }
    nn_safetensors *st = nn_safetensors_open(file);
    free(file);
    if (!st)
        fail_msg("%s", cs_error());
    assert_int_equal(nn_safetensors_count(st), 20);
    size_t integers = 0;
    for (size_t i = 0; i < 20; i++) {
        const nn_st_tensor *t = nn_safetensors_at(st, i);
        void *values = calloc((size_t)t->count + 1, 8);
        if (t->type == NN_ST_I64) {
            integers++;
            assert_true(nn_safetensors_read_i32(st, t, values));
        } else {
            assert_true(nn_safetensors_read_f32(st, t, values));
            assert_true(((float *)values)[0] > -100 && ((float *)values)[0] < 100);
        }
        free(values);
    }
    assert_in_range(integers, 1, 19);
    nn_safetensors_close(&st);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(written_is_read_back),
        cmocka_unit_test(short_types_are_widened),
        cmocka_unit_test(a_half_written_file_does_not_appear),
        cmocka_unit_test(each_broken_header_is_refused),
        cmocka_unit_test(order_in_the_header_is_free),
        cmocka_unit_test(a_file_of_another_project_is_read),
    };
    return cmocka_run_group_tests(tests, set_up, remove_folder);
}
