/* multimodal/dataset.c: LLaVA-format JSON and JSON lines, and the message for every way in which they can be wrong. */
#include "tests/data_fixture.h"

#include "multimodal/dataset.h"
#include "multimodal/import_easyvqa.h"

#define HUMAN(text) "{\"from\": \"human\", \"value\": \"" text "\"}"
#define GPT(text) "{\"from\": \"gpt\", \"value\": \"" text "\"}"
#define TALK(list) "\"conversations\": [" list "]"
#define GOOD "{\"id\": \"good\", " TALK(HUMAN("hi") ", " GPT("hello")) "}"

static int set_up(void **state)
{
    if (make_folder(state) != 0 || !cs_make_folder(in_folder("images")))
        return -1;
    write_picture("images/cat.png", 8, 100);
    write_text("images/broken.png", "\x89PNG\r\n\x1a\n but no more");
    write_text("images/empty.png", "");
    return 0;
}

static mm_dataset *open_text(const char *name, const char *text, mm_dataset_params params)
{
    return mm_dataset_open(write_text(name, text), &params);
}

static void array_with_and_without_picture(void **state)
{
    (void)state;
    mm_dataset *d = open_text(
        "good.json",
        "[{\"id\": 7, \"image\": \"images/cat.png\",\n \"conversations\": [" HUMAN("what is it?\\n<image>") ", " GPT(
            "a cat") ", " HUMAN("sure? ") ", " GPT(" yes") "]},\n" GOOD
                                                           ",\n{\"id\": \"x\", \"image\": \"images/cat.png\", " TALK(
                                                               HUMAN("<image>") ", " GPT("cat")) "}]\n",
        (mm_dataset_params){.decode = true});
    assert_non_null(d);
    assert_int_equal(d->count, 3);
    assert_int_equal(d->turns, 4);
    assert_int_equal(d->image_count, 1);
    assert_string_equal(d->images[0], in_folder("images/cat.png"));
    const mm_sample *s = d->samples;
    assert_string_equal(s[0].id, "7");
    assert_int_equal(s[0].turn_count, 2);
    assert_string_equal(s[0].turns[0].question, "what is it?");
    assert_string_equal(s[0].turns[0].answer, "a cat");
    assert_string_equal(s[0].turns[1].question, "sure? ");
    assert_string_equal(s[0].turns[1].answer, " yes");
    assert_int_equal(s[1].image, -1);
    assert_int_equal(s[1].line, 3);
    assert_int_equal(s[2].image, 0);
    assert_string_equal(s[2].turns[0].question, "");
    mm_dataset_close(d);
}

static void lines_with_byte_order_mark_and_blank_lines(void **state)
{
    (void)state;
    mm_dataset *d = open_text("good.jsonl", "\xEF\xBB\xBF" GOOD "\r\n\n" GOOD, (mm_dataset_params){0});
    assert_non_null(d);
    assert_int_equal(d->count, 2);
    assert_int_equal(d->samples[1].line, 3);
    assert_int_equal(d->samples[1].index, 1);
    mm_dataset_close(d);
}

static void pictures_are_found_under_another_root(void **state)
{
    (void)state;
    char *root = strdup(in_folder("images"));
    mm_dataset *d =
        open_text("rooted.json", "[{\"id\": 1, \"image\": \"cat.png\", " TALK(HUMAN("<image>\\nq") ", " GPT("a")) "}]",
                  (mm_dataset_params){.image_root = root});
    assert_non_null(d);
    assert_string_equal(d->images[0], in_folder("images/cat.png"));
    mm_dataset_close(d);
    free(root);
}

/* Opens `text` as NAME and wants the error "<path>EXPECTED". */
static void refuse(const char *name, const char *text, const char *expected)
{
    char want[512];
    snprintf(want, sizeof want, "%s%s", in_folder(name), expected);
    mm_dataset *d = open_text(name, text, (mm_dataset_params){.decode = true});
    if (d)
        fail_msg("accepted: %s", text);
    assert_string_equal(cs_error(), want);
}

#define SAMPLE(members) "[" GOOD ",\n{" members "}]"

static void every_wrong_sample_is_named(void **state)
{
    (void)state;
    const struct {
        const char *members, *message;
    } rows[] = {
        {TALK(HUMAN("q") ", " GPT("a")), "id is missing"},
        {"\"id\": [], " TALK(HUMAN("q") ", " GPT("a")), "id is neither a string nor an integer"},
        {"\"id\": 1", "conversations is missing"},
        {"\"id\": 1, \"conversations\": \"q\"", "conversations is not an array"},
        {"\"id\": 1, " TALK(""), "conversations is empty"},
        {"\"id\": 1, " TALK("3"), "conversations[0] is not an object"},
        {"\"id\": 1, " TALK("{\"value\": \"q\"}, " GPT("a")), "conversations[0].from is missing"},
        {"\"id\": 1, " TALK("{\"from\": 3, \"value\": \"q\"}, " GPT("a")), "conversations[0].from is not a string"},
        {"\"id\": 1, " TALK("{\"from\": \"human\"}, " GPT("a")), "conversations[0].value is missing"},
        {"\"id\": 1, " TALK(HUMAN("q") ", {\"from\": \"gpt\", \"value\": null}"),
         "conversations[1].value is not a string"},
        {"\"id\": 1, " TALK(HUMAN(" ") ", " GPT("a")), "conversations[0].value is empty"},
        {"\"id\": 1, " TALK(HUMAN("q") ", " GPT("")), "conversations[1].value is empty"},
        {"\"id\": 1, " TALK(GPT("a") ", " HUMAN("q")), "conversations[0].from is 'gpt' where 'human' has its turn"},
        {"\"id\": 1, " TALK(HUMAN("q") ", " HUMAN("q")), "conversations[1].from is 'human' where 'gpt' has its turn"},
        {"\"id\": 1, " TALK("{\"from\": \"user\", \"value\": \"q\"}, " GPT("a")),
         "conversations[0].from is 'user'; only human and gpt are known"},
        {"\"id\": 1, " TALK(HUMAN("q")), "conversations[0], the last question, has no answer"},
        {"\"id\": 1, " TALK(HUMAN("<image>\\nq") ", " GPT("a")),
         "conversations[0].value has <image>, but the sample has no image"},
        {"\"id\": 1, \"image\": \"images/cat.png\", " TALK(HUMAN("q") ", " GPT("a")),
         "the sample has an image, but its first question has no <image>"},
        {"\"id\": 1, \"image\": \"images/cat.png\", " TALK(HUMAN("<image><image>") ", " GPT("a")),
         "conversations[0].value has <image> more than once"},
        {"\"id\": 1, \"image\": \"images/cat.png\", " TALK(HUMAN("<image>") ", " GPT("an <image>")),
         "conversations[1].value has <image>, which belongs into the first question"},
        {"\"id\": 1, \"image\": 4, " TALK(HUMAN("<image>") ", " GPT("a")), "image is not a string"},
        {"\"id\": 1, \"image\": \"\", " TALK(HUMAN("<image>") ", " GPT("a")), "image is empty"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char text[1024], message[512];
        snprintf(text, sizeof text, "[" GOOD ",\n{%s}]", rows[i].members);
        snprintf(message, sizeof message, ":2: sample 1: %s", rows[i].message);
        refuse("wrong.json", text, message);
    }
    refuse("wrong.jsonl", GOOD "\n\n3\n", ":3: sample 1: is not an object");
}

static void unreadable_pictures_are_named(void **state)
{
    (void)state;
    const char *const names[] = {"images/none.png", "images/broken.png", "images/empty.png", "images"};
    for (int i = 0; i < 4; i++) {
        char text[512], place[512];
        snprintf(text, sizeof text, "[{\"id\": 1, \"image\": \"%s\", " TALK(HUMAN("<image>\\nq") ", " GPT("a")) "}]",
                 names[i]);
        snprintf(place, sizeof place, ":1: sample 0: %s: ", in_folder(names[i]));
        assert_null(open_text("pictures.json", text, (mm_dataset_params){.decode = true}));
        assert_non_null(strstr(cs_error(), place));
    }
}

static void syntax_errors_have_line_and_column(void **state)
{
    (void)state;
    char text[512];
    assert_null(open_text("syntax.json", "[" GOOD ",\n{\"id\" 7}]", (mm_dataset_params){0}));
    snprintf(text, sizeof text, "%s:2:7: syntax error: ", in_folder("syntax.json"));
    assert_true(!strncmp(cs_error(), text, strlen(text)));
    assert_null(open_text("syntax.jsonl", GOOD "\n" GOOD "\n{\"id\": 1,}\n", (mm_dataset_params){0}));
    snprintf(text, sizeof text, "%s:3:10: syntax error: ", in_folder("syntax.jsonl"));
    assert_true(!strncmp(cs_error(), text, strlen(text)));
    refuse("s.json", "[\n" GOOD "\n  x", ":3:3: syntax error: ',' or ']' expected");
    refuse("s.json", "[" GOOD "\n", ":2:1: syntax error: the array is not closed");
    refuse("s.json", "[" GOOD "]\n]", ":2:1: syntax error: something follows the array");
    assert_null(open_text("s.json", "[" GOOD ",]", (mm_dataset_params){0}));
    assert_null(open_text("s.json", "[", (mm_dataset_params){0}));
    refuse("s.json", "[]", ": has no samples");
    refuse("s.json", "", ": has no samples");
    assert_null(open_text("s.json", "{\"id\": 1, \"id\": 2}", (mm_dataset_params){0}));
    assert_non_null(strstr(cs_error(), "duplicate"));
    assert_null(mm_dataset_open(in_folder("missing.json"), &(mm_dataset_params){0}));
    assert_non_null(strstr(cs_error(), "missing.json: cannot open"));
}

static void collect(void *user, const char *message)
{
    strcat(user, strrchr(message, '/') + 1);
    strcat(user, "\n");
}

static void every_fault_is_collected(void **state)
{
    (void)state;
    char faults[2048] = "";
    mm_dataset *d =
        open_text("many.jsonl",
                  "{\"image\": 3, \"conversations\": []}\n" GOOD "\n{\"id\": 1,\n"
                  "{\"id\": 2, " TALK(HUMAN("") ", " HUMAN("q") ", " HUMAN(
                      "<image>")) "}\n"
                                  "{\"id\": 3, \"image\": \"none.png\", " TALK(HUMAN("<image>") ", " GPT("a")) "}\n",
                  (mm_dataset_params){.fault = collect, .user = faults, .decode = true});
    assert_non_null(d);
    assert_string_equal(faults,
                        "many.jsonl:1: sample 0: id is missing\n"
                        "many.jsonl:1: sample 0: image is not a string\n"
                        "many.jsonl:1: sample 0: conversations is empty\n"
                        "many.jsonl:3:9: syntax error: string or '}' expected near end of file\n"
                        "many.jsonl:4: sample 3: conversations[0].value is empty\n"
                        "many.jsonl:4: sample 3: conversations[1].from is 'human' where 'gpt' has its turn\n"
                        "many.jsonl:4: sample 3: conversations[2].value has <image>, but the sample has no image\n"
                        "many.jsonl:4: sample 3: conversations[2], the last question, has no answer\n"
                        "none.png: no such picture\n");
    assert_int_equal(d->count, 1);
    assert_int_equal(d->bad, 4);
    assert_int_equal(d->faults, 9);
    mm_dataset_close(d);
}

static void bad_samples_are_skipped_and_counted(void **state)
{
    (void)state;
    mm_dataset *d = open_text("skip.jsonl", "{\n" GOOD "\n{\"id\": 1}\n", (mm_dataset_params){.skip_bad = true});
    assert_non_null(d);
    assert_int_equal(d->count, 1);
    assert_int_equal(d->bad, 2);
    mm_dataset_close(d);
    assert_null(open_text("skip.jsonl", "{\"id\": 1}\n", (mm_dataset_params){.skip_bad = true}));
    assert_non_null(strstr(cs_error(), "none of its 1 samples can be used"));
    assert_null(open_text("skip.json", "[" GOOD ", {", (mm_dataset_params){.skip_bad = true}));
    assert_non_null(strstr(cs_error(), "syntax error"));
}

static void words_need_no_pictures(void **state)
{
    (void)state;
    const char *sample = "{\"id\": 1, \"image\": \"none.png\", " TALK(HUMAN("<image> hi") ", " GPT("a")) "}\n";
    mm_dataset *d = open_text("words.jsonl", sample, (mm_dataset_params){.text_only = true});
    assert_non_null(d);
    assert_int_equal(d->count, 1);
    mm_dataset_close(d);
}

static void write_easyvqa(const char *test_questions)
{
    cs_make_folder(in_folder("easy/train/images"));
    cs_make_folder(in_folder("easy/test/images"));
    write_picture("easy/train/images/0.png", 8, 1);
    write_picture("easy/train/images/2.png", 8, 2);
    write_picture("easy/test/images/0.png", 8, 3);
    write_text("easy/train/questions.json",
               "[[\"what colour?\", \"red\", 2], [\"a circle?\", \"yes\", 0], [\"a box?\", \"no\", 2]]");
    write_text("easy/test/questions.json", test_questions);
}

static void easyvqa_becomes_one_sample_per_picture(void **state)
{
    (void)state;
    mm_import_counts counts[2];
    write_easyvqa("[[\"a box?\", \"no\", 0]]");
    assert_true(mm_import_easyvqa(in_folder("easy"), in_folder("imported/"), counts));
    assert_int_equal(counts[0].samples, 2);
    assert_int_equal(counts[0].turns, 3);
    mm_dataset *d = mm_dataset_open(in_folder("imported/train.json"), &(mm_dataset_params){.decode = true});
    assert_non_null(d);
    assert_int_equal(d->count, 2);
    assert_string_equal(d->samples[1].id, "train-2");
    assert_int_equal(d->samples[1].turn_count, 2);
    assert_string_equal(d->samples[1].turns[1].question, "a box?");
    mm_dataset_close(d);
    assert_false(mm_import_easyvqa(in_folder("easy"), in_folder("imported"), counts));
    assert_non_null(strstr(cs_error(), "imported: exists already and is not empty"));
}

static void a_failed_import_leaves_nothing(void **state)
{
    (void)state;
    mm_import_counts counts[2];
    char command[512];
    write_easyvqa("[[\"a box?\", \"no\", 5]]");
    assert_false(mm_import_easyvqa(in_folder("easy"), in_folder("nothing"), counts));
    assert_non_null(strstr(cs_error(), "easy/test/images/5.png"));
    write_easyvqa("[[\"a box?\", \"no\"]]");
    assert_false(mm_import_easyvqa(in_folder("easy"), in_folder("nothing"), counts));
    assert_non_null(strstr(cs_error(), "questions.json: entry 0 is not [question, answer, image]"));
    snprintf(command, sizeof command, "test -z \"$(ls -d %s/nothing* 2>/dev/null)\"", folder);
    assert_int_equal(system(command), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(array_with_and_without_picture),
        cmocka_unit_test(lines_with_byte_order_mark_and_blank_lines),
        cmocka_unit_test(pictures_are_found_under_another_root),
        cmocka_unit_test(every_wrong_sample_is_named),
        cmocka_unit_test(unreadable_pictures_are_named),
        cmocka_unit_test(syntax_errors_have_line_and_column),
        cmocka_unit_test(every_fault_is_collected),
        cmocka_unit_test(bad_samples_are_skipped_and_counted),
        cmocka_unit_test(words_need_no_pictures),
        cmocka_unit_test(easyvqa_becomes_one_sample_per_picture),
        cmocka_unit_test(a_failed_import_leaves_nothing),
    };
    return cmocka_run_group_tests_name("dataset", tests, set_up, close_folder);
}
