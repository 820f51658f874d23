/* A published model of llama2.c, imported, tells the story that its author published. */
#include <jansson.h>

#include "tests/data_fixture.h"
#include "tests/nn_fixture.h"

#include "multimodal/generate.h"
#include "multimodal/import_llama2c.h"

enum { GREEDY = 200 };

static char source[512];

static int open_source(void **state)
{
    const char *shared = getenv("CSMOE_SHARED");
    snprintf(source, sizeof source, "%s/data/stories260k", shared ? shared : "../shared");
    return make_folder(state) | open_device(state);
}

static int close_source(void **state)
{
    return close_folder(state) | close_device(state);
}

/* Skips without the reference data. */
static json_t *expected(void)
{
    char path[600];
    snprintf(path, sizeof path, "%s/expected.json", source);
    if (!cs_is_file(path)) {
        print_message("no reference data at %s\n", path);
        skip();
    }
    json_t *json = json_load_file(path, 0, NULL);
    assert_non_null(json);
    return json;
}

static void test_story(void **state)
{
    (void)state;
    json_t *json = expected(), *greedy = json_object_get(json, "greedy_ids");
    assert_true(json_array_size(greedy) >= GREEDY);
    mm_llama2c_shape shape;
    const char *target = in_folder("stories");
    check(mm_import_llama2c(source, target, device, &shape));
    assert_true(shape.width == 64 && shape.layers == 5 && shape.vocabulary == 512);
    assert_true(shape.heads == 8 && shape.kv_heads == 4);

    mm_loaded l;
    check(mm_load(&l, target, device, NULL, 0));
    int32_t ids[GREEDY], start = (int32_t)json_integer_value(json_array_get(json_object_get(json, "start"), 0));
    int count;
    check(mm_generate_raw(&l, &start, 1, &(mm_generate_params){.max_tokens = GREEDY, .stop = -1}, ids, &count));
    assert_int_equal(count, GREEDY);
    for (int i = 0; i < GREEDY; i++)
        if (ids[i] != json_integer_value(json_array_get(greedy, (size_t)i)))
            fail_msg("token %d is %d, not %d", i, ids[i], (int)json_integer_value(json_array_get(greedy, (size_t)i)));
    char *text = mm_tokenizer_decode(l.tokenizer, ids, GREEDY, NULL);
    check(text);
    const char *told = json_string_value(json_object_get(json, "text"));
    assert_memory_equal(text, told + (*told == ' ' && *text != ' '), strlen(text));
    free(text);
    mm_unload(&l);

    assert_false(mm_import_llama2c(source, target, device, &shape));
    assert_error("exists already");
    json_decref(json);
}

/* The source folder with its weights replaced by `size` bytes of them, the header's number `word` changed. */
static void assert_refused(size_t size, int word, int32_t value, const char *message)
{
    char path[600];
    size_t bytes;
    snprintf(path, sizeof path, "%s/stories260K.bin", source);
    char *model = cs_read_file(path, (size_t)1 << 30, &bytes);
    assert_true(model && size <= bytes);
    memcpy(model + 4 * word, &value, sizeof value);
    check(cs_write_file(in_folder("model.bin"), model, size));
    free(model);
    mm_llama2c_shape shape;
    assert_false(mm_import_llama2c(in_folder("model.bin"), in_folder("refused"), device, &shape));
    assert_error("model.bin: ");
    assert_error(message);
    assert_false(cs_is_folder(in_folder("refused")));
}

static void test_bad_weights(void **state)
{
    (void)state;
    json_decref(expected());
    mm_llama2c_shape shape;
    assert_false(mm_import_llama2c(in_folder("model.bin"), in_folder("refused"), device, &shape));
    assert_error("there is no file here that could be a tokenizer (tok*.bin)");
    char path[600];
    size_t bytes;
    snprintf(path, sizeof path, "%s/tok512.bin", source);
    char *pieces = cs_read_file(path, (size_t)1 << 30, &bytes);
    assert_non_null(pieces);
    check(cs_write_file(in_folder("tok512.bin"), pieces, bytes));
    free(pieces);
    assert_refused(20, 0, 64, "too few for a llama2.c model");
    assert_refused(100000, 0, 64, "truncated");
    assert_refused(100000, 0, 0, "not a llama2.c model");
    assert_refused(100000, 2, 100, "truncated");
    assert_refused(100000, 3, 7, "not a llama2.c model");
    assert_refused(100000, 5, INT32_MIN, "not a llama2.c model");
    assert_refused(1000000, 5, 300, "the model has 300 pieces, but");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_story),
        cmocka_unit_test(test_bad_weights),
    };
    return cmocka_run_group_tests(tests, open_source, close_source);
}
