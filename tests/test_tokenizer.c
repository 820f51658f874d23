/* The tokenizer: published vectors, llama2.c's format, training, and files that are none. */
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
#include "base/memory.h"
#include "multimodal/tokenizer.h"
#include "tests/folder_fixture.h"

/* A path below the shared data; ends the test as skipped, saying so, where the data is not there. */
static char *shared(const char *name)
{
    const char *root = getenv("CSMOE_SHARED");
    char *path = cs_join(root ? root : "../shared", name);
    assert_non_null(path);
    if (!cs_is_file(path)) {
        print_message("skipped: %s is not here\n", path);
        free(path);
        skip();
    }
    return path;
}

static json_t *shared_json(const char *name)
{
    char *path = shared(name);
    json_error_t error;
    json_t *root = json_load_file(path, 0, &error);
    if (!root)
        fail_msg("%s: %s", path, error.text);
    free(path);
    return root;
}

static mm_tokenizer *shared_tokenizer(const char *name)
{
    char *path = shared(name);
    mm_tokenizer *t = mm_tokenizer_load(path);
    if (!t)
        fail_msg("%s", cs_error());
    free(path);
    return t;
}

/* Every case of the file, whose ids begin with `bos` where that is not negative. */
static void reproduce(const char *vectors, const char *model, int bos)
{
    json_t *root = shared_json(vectors), *cases = json_object_get(root, "cases"), *item;
    mm_tokenizer *t = shared_tokenizer(model);
    size_t n, first = bos >= 0;
    assert_true(json_array_size(cases) > 0);
    if (bos < 0)
        assert_int_equal(mm_tokenizer_size(t), json_integer_value(json_object_get(root, "vocab_size")));
    json_array_foreach(cases, n, item) {
        json_t *text = json_object_get(item, "text"), *want = json_object_get(item, "ids");
        json_t *decoded = json_object_get(item, "decoded");
        int32_t *ids;
        size_t count;
        assert_true(mm_tokenizer_encode(t, json_string_value(text), json_string_length(text), &ids, &count));
        assert_int_equal(count + first, json_array_size(want));
        if (first)
            assert_int_equal(json_integer_value(json_array_get(want, 0)), mm_tokenizer_bos(t));
        for (size_t i = 0; i < count; i++)
            if (ids[i] != json_integer_value(json_array_get(want, i + first)))
                fail_msg("%s case %zu, id %zu: %d", vectors, n, i, ids[i]);
        if (decoded) {
            size_t length;
            char *back = mm_tokenizer_decode(t, ids, count, &length);
            assert_non_null(back);
            assert_string_equal(back, json_string_value(decoded));
            assert_int_equal(length, json_string_length(decoded));
            free(back);
        }
        free(ids);
    }
    mm_tokenizer_free(t);
    json_decref(root);
}

static void llama2_vectors(void **state)
{
    (void)state;
    reproduce("data/tokenizers/vectors_llama2.json", "data/tokenizers/llama2/tokenizer.model", -1);
}

static void llama2c_vectors(void **state)
{
    (void)state;
    reproduce("data/tokenizers/vectors_llama2c_testc.json", "data/tokenizers/llama2/tokenizer.model", 1);
}

static void mistral_vectors(void **state)
{
    (void)state;
    reproduce("data/tokenizers/vectors_mistral_v1.json", "data/tokenizers/mistral/tokenizer.model.v1", -1);
}

static void sentencepiece_vectors(void **state)
{
    (void)state;
    reproduce("data/tokenizers/vectors_sp_test_model.json", "data/tokenizers/sentencepiece-test/test_model.model", -1);
}

static void pieces_and_special_ids(void **state)
{
    (void)state;
    mm_tokenizer *t = shared_tokenizer("data/tokenizers/llama2/tokenizer.model");
    assert_int_equal(mm_tokenizer_unk(t), 0);
    assert_int_equal(mm_tokenizer_bos(t), 1);
    assert_int_equal(mm_tokenizer_eos(t), 2);
    assert_int_equal(mm_tokenizer_pad(t), -1);
    assert_string_equal(mm_tokenizer_piece(t, 306), "\xe2\x96\x81I");
    assert_int_equal(mm_tokenizer_id(t, "\xe2\x96\x81I"), 306);
    assert_int_equal(mm_tokenizer_id(t, "<unk>"), 0);
    assert_int_equal(mm_tokenizer_id(t, "no such piece"), -1);
    assert_null(mm_tokenizer_piece(t, 32000));
    assert_null(mm_tokenizer_piece(t, -1));
    const int32_t bad[2] = {306, 32000};
    assert_null(mm_tokenizer_decode(t, bad, 2, NULL));
    assert_non_null(strstr(cs_error(), "32000"));
    mm_tokenizer_free(t);
}

/* Rebuilding Llama 2's model from llama2.c's export must encode exactly as the original. */
static void llama2c_file_equals_its_origin(void **state)
{
    (void)state;
    char *path = shared("data/tokenizers/llama2/tokenizer.bin");
    json_t *root = shared_json("data/tokenizers/vectors_llama2.json"), *item;
    mm_tokenizer *t = mm_tokenizer_from_llama2c(path);
    size_t n;
    if (!t)
        fail_msg("%s", cs_error());
    json_array_foreach(json_object_get(root, "cases"), n, item) {
        json_t *text = json_object_get(item, "text"), *want = json_object_get(item, "ids");
        int32_t *ids;
        size_t count;
        assert_true(mm_tokenizer_encode(t, json_string_value(text), json_string_length(text), &ids, &count));
        assert_int_equal(count, json_array_size(want));
        for (size_t i = 0; i < count; i++)
            assert_int_equal(ids[i], json_integer_value(json_array_get(want, i)));
        free(ids);
    }
    mm_tokenizer_free(t);
    json_decref(root);
    free(path);
}

static void stories260k_decodes(void **state)
{
    (void)state;
    char *path = shared("data/stories260k/tok512.bin");
    json_t *root = shared_json("data/stories260k/expected.json"), *list = json_object_get(root, "greedy_ids");
    mm_tokenizer *t = mm_tokenizer_from_llama2c(path);
    if (!t)
        fail_msg("%s", cs_error());
    assert_int_equal(mm_tokenizer_size(t), 512);
    assert_int_equal(mm_tokenizer_bos(t), 1);
    assert_int_equal(mm_tokenizer_eos(t), 2);
    int32_t ids[512];
    size_t count = json_array_size(list);
    assert_in_range(count, 1, 512);
    for (size_t i = 0; i < count; i++)
        ids[i] = (int32_t)json_integer_value(json_array_get(list, i));
    char *text = mm_tokenizer_decode(t, ids, count, NULL);
    assert_non_null(text);
    /* The file holds the pieces as they stand; decoding drops the separator before the first word. */
    const char *want = json_string_value(json_object_get(root, "text"));
    assert_string_equal(text, want + (*want == ' '));
    /* The model survives being stored in a checkpoint. */
    size_t size;
    const void *bytes = mm_tokenizer_model(t, &size);
    mm_tokenizer *again = mm_tokenizer_from_memory(bytes, size, "stored");
    assert_non_null(again);
    int32_t *back;
    assert_true(mm_tokenizer_encode(again, text, strlen(text), &back, &count));
    char *round_trip = mm_tokenizer_decode(again, back, count, NULL);
    assert_string_equal(round_trip, text);
    free(back);
    free(round_trip);
    free(text);
    mm_tokenizer_free(again);
    mm_tokenizer_free(t);
    json_decref(root);
    free(path);
}

static const char *const sentences[] = {
    "What colour is the circle?",
    "The circle is red.",
    "Is there a blue square?",
    "There is a small blue square.",
    "How many objects are there?",
    "three",
    "What is left of the red triangle",
    "\xc3\xa9t\xc3\xa9, na\xc3\xafve",
    "yes",
};
enum { SENTENCES = sizeof sentences / sizeof *sentences };

static void trains_every_type(void **state)
{
    (void)state;
    const char *const symbols[] = {"<image>", "USER:", "a,\"b\""};
    for (enum mm_model_type type = MM_MODEL_UNIGRAM; type <= MM_MODEL_CHAR; type++) {
        mm_tokenizer_options options = {.vocabulary = 80, .type = type, .symbols = symbols, .symbol_count = 3};
        mm_tokenizer *a = mm_tokenizer_train(sentences, SENTENCES, &options);
        if (!a)
            fail_msg("%s", cs_error());
        mm_tokenizer *b = mm_tokenizer_train(sentences, SENTENCES, &options);
        size_t a_size, b_size;
        const void *a_model = mm_tokenizer_model(a, &a_size), *b_model = mm_tokenizer_model(b, &b_size);
        assert_int_equal(a_size, b_size);
        assert_memory_equal(a_model, b_model, a_size);
        assert_true(mm_tokenizer_size(a) <= 80);
        assert_int_equal(mm_tokenizer_bos(a), 1);
        assert_int_equal(mm_tokenizer_eos(a), 2);
        assert_int_equal(mm_tokenizer_pad(a), 3);
        for (int i = 0; i < 3; i++)
            assert_int_equal(mm_tokenizer_id(a, symbols[i]), 4 + i);
        for (size_t i = 0; i < SENTENCES; i++) {
            int32_t *ids;
            size_t count;
            assert_true(mm_tokenizer_encode(a, sentences[i], strlen(sentences[i]), &ids, &count));
            char *back = mm_tokenizer_decode(a, ids, count, NULL);
            assert_string_equal(back, sentences[i]);
            free(back);
            free(ids);
        }
        mm_tokenizer_free(a);
        mm_tokenizer_free(b);
    }
}

static void byte_fallback_knows_all_text(void **state)
{
    (void)state;
    mm_tokenizer_options options = {.vocabulary = 320, .type = MM_MODEL_BPE, .byte_fallback = true};
    mm_tokenizer *t = mm_tokenizer_train(sentences, SENTENCES, &options);
    if (!t)
        fail_msg("%s", cs_error());
    const char text[] = "\xe6\xbc\xa2\n\tzq\0x";
    int32_t *ids;
    size_t count, length;
    assert_true(mm_tokenizer_encode(t, text, sizeof text - 1, &ids, &count));
    char *back = mm_tokenizer_decode(t, ids, count, &length);
    assert_int_equal(length, sizeof text - 1);
    assert_memory_equal(back, text, sizeof text);
    free(back);
    free(ids);
    assert_true(mm_tokenizer_encode(t, "", 0, &ids, &count));
    assert_non_null(ids);
    assert_int_equal(count, 0);
    free(ids);
    mm_tokenizer_free(t);
}

static void refuses_bad_training(void **state)
{
    (void)state;
    const char *const blank[] = {"", "  \n"};
    const char *const twice[] = {"<s>", "<s>"};
    mm_tokenizer_options options = {.vocabulary = 64};
    assert_null(mm_tokenizer_train(sentences, 0, &options));
    assert_null(mm_tokenizer_train(blank, 2, &options));
    assert_non_null(strstr(cs_error(), "no text"));
    options.vocabulary = 4;
    assert_null(mm_tokenizer_train(sentences, SENTENCES, &options));
    assert_non_null(strstr(cs_error(), "vocabulary of 4 is too small"));
    options.vocabulary = 10;
    assert_null(mm_tokenizer_train(sentences, SENTENCES, &options));
    options.vocabulary = 200;
    options.byte_fallback = true;
    assert_null(mm_tokenizer_train(sentences, SENTENCES, &options));
    options.byte_fallback = false;
    options.coverage = 0.5;
    assert_null(mm_tokenizer_train(sentences, SENTENCES, &options));
    assert_non_null(strstr(cs_error(), "coverage"));
    options.coverage = 0;
    options.symbols = twice;
    options.symbol_count = 2;
    assert_null(mm_tokenizer_train(sentences, SENTENCES, &options));
    options.symbols = blank;
    assert_null(mm_tokenizer_train(sentences, SENTENCES, &options));
    assert_non_null(strstr(cs_error(), "symbol 1 is empty"));
}

static void refuses_what_is_no_model(void **state)
{
    (void)state;
    assert_null(mm_tokenizer_load(folder));
    assert_non_null(strstr(cs_error(), "folder"));
    const char *path = in_folder("x.model");
    assert_null(mm_tokenizer_load(path));
    assert_non_null(strstr(cs_error(), path));
    const char *const contents[] = {"", "{\"model\": 1}", "\x0a\x07\x0a\x05<unk>", "\x89PNG\r\n\x1a\n", "\x00\x00\x00"};
    const size_t sizes[] = {0, 12, 9, 8, 3};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        assert_true(cs_write_file(path, contents[i], sizes[i]));
        assert_null(mm_tokenizer_load(path));
        assert_non_null(strstr(cs_error(), path));
        assert_non_null(strstr(cs_error(), "not a SentencePiece model"));
        assert_null(mm_tokenizer_from_llama2c(path));
        assert_non_null(strstr(cs_error(), path));
        assert_non_null(strstr(cs_error(), "llama2.c tokenizer"));
    }
}

static void refuses_truncated_models(void **state)
{
    (void)state;
    mm_tokenizer_options options = {.vocabulary = 80};
    mm_tokenizer *t = mm_tokenizer_train(sentences, SENTENCES, &options);
    assert_non_null(t);
    size_t size;
    const void *model = mm_tokenizer_model(t, &size);
    int refused = 0;
    for (size_t n = 0; n < size; n += 1 + size / 97) {
        mm_tokenizer *part = mm_tokenizer_from_memory(model, n, "part");
        refused += !part;
        mm_tokenizer_free(part);
    }
    /* A cut between two fields leaves a smaller, valid message; all others are seen. */
    assert_in_range(refused, 80, 97);
    mm_tokenizer_free(t);
}

static void refuses_a_truncated_llama2c_file(void **state)
{
    (void)state;
    size_t size;
    char *path = shared("data/stories260k/tok512.bin");
    char *data = cs_read_file(path, 1 << 20, &size);
    const char *cut = in_folder("cut.bin");
    assert_true(cs_write_file(cut, data, size - 3));
    assert_null(mm_tokenizer_from_llama2c(cut));
    assert_non_null(strstr(cs_error(), "cut.bin: truncated"));
    free(data);
    free(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(llama2_vectors),
        cmocka_unit_test(llama2c_vectors),
        cmocka_unit_test(mistral_vectors),
        cmocka_unit_test(sentencepiece_vectors),
        cmocka_unit_test(pieces_and_special_ids),
        cmocka_unit_test(llama2c_file_equals_its_origin),
        cmocka_unit_test(stories260k_decodes),
        cmocka_unit_test(trains_every_type),
        cmocka_unit_test(byte_fallback_knows_all_text),
        cmocka_unit_test(refuses_bad_training),
        cmocka_unit_test_setup_teardown(refuses_what_is_no_model, make_folder, remove_folder),
        cmocka_unit_test(refuses_truncated_models),
        cmocka_unit_test_setup_teardown(refuses_a_truncated_llama2c_file, make_folder, remove_folder),
    };
    return cmocka_run_group_tests_name("tokenizer", tests, NULL, NULL);
}
