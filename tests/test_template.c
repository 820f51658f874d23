/* multimodal/template.c: the text of each template, letter by letter, and what of it is learned. */
#include "tests/data_fixture.h"

#include "multimodal/template.h"

static const mm_turn turns[] = {{"what?", "a cat"}, {"colour?", "grey"}};

/* The spans as one text: the picture is {I}, begin {B}, end {E}, a line feed {N}; learned parts in [brackets]. */
static const char *written(const char *name, const mm_turn *list, size_t count, bool image, mm_turns_mode mode)
{
    static char text[2048];
    const char *const special[] = {
        [MM_SPAN_BOS] = "{B}", [MM_SPAN_IMAGE] = "{I}", [MM_SPAN_END] = "{E}", [MM_SPAN_LINE] = "{N}"};
    const mm_template *t = mm_template_find(name);
    mm_spans spans = {0};
    assert_non_null(t);
    assert_true(mm_template_write(t, list, count, image, mode, &spans));
    bool label = false;
    text[0] = 0;
    for (size_t i = 0; i < spans.count; i++) {
        const mm_span *s = &spans.items[i];
        if (s->label != label)
            strcat(text, s->label ? "[" : "]");
        label = s->label;
        strcat(text, s->kind == MM_SPAN_MARKUP || s->kind == MM_SPAN_WORDS ? s->text : special[s->kind]);
    }
    strcat(text, label ? "]" : "");
    free(spans.items);
    return text;
}

#define VICUNA                                                                                                         \
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, "  \
    "and "                                                                                                             \
    "polite answers to the user's questions."

static void plain_is_question_line_feed_answer(void **state)
{
    (void)state;
    assert_string_equal(written("plain", turns, 2, true, MM_TURNS_CONVERSATION),
                        "{B}{I}what?{N}[a cat{E}]colour?{N}[grey{E}]");
    assert_string_equal(written("plain", turns, 2, false, MM_TURNS_ISOLATED),
                        "{B}what?{N}[a cat{E}]colour?{N}[grey{E}]");
}

static void plain_caption_follows_the_picture(void **state)
{
    (void)state;
    const mm_turn caption = {"", "a cat"};
    assert_string_equal(written("plain", &caption, 1, true, MM_TURNS_CONVERSATION), "{B}{I}[a cat{E}]");
}

static void vicuna_is_llavas_text(void **state)
{
    (void)state;
    assert_string_equal(written("vicuna_v1", turns, 2, true, MM_TURNS_CONVERSATION),
                        "{B}" VICUNA " USER: {I}\nwhat? ASSISTANT:[ a cat{E}]USER: colour? ASSISTANT:[ grey{E}]");
    assert_string_equal(written("vicuna_v1", turns, 2, false, MM_TURNS_CONVERSATION),
                        "{B}" VICUNA " USER: what? ASSISTANT:[ a cat{E}]USER: colour? ASSISTANT:[ grey{E}]");
}

static void vicuna_isolated_turns_look_like_the_first(void **state)
{
    (void)state;
    assert_string_equal(written("vicuna_v1", turns, 2, true, MM_TURNS_ISOLATED),
                        "{B}" VICUNA " USER: {I}\nwhat? ASSISTANT:[ a cat{E}]\ncolour? ASSISTANT:[ grey{E}]");
    assert_string_equal(written("vicuna_v1", turns, 2, false, MM_TURNS_ISOLATED),
                        "{B}" VICUNA " USER: what? ASSISTANT:[ a cat{E}] USER: colour? ASSISTANT:[ grey{E}]");
}

static void phi3_is_llavas_text(void **state)
{
    (void)state;
    assert_string_equal(
        written("phi3", turns, 2, true, MM_TURNS_CONVERSATION),
        "{B}<|system|>\nYou are a helpful AI assistant.<|end|>\n<|user|>\n{I}\nwhat?<|end|>\n<|assistant|>\n"
        "[a cat{E}]\n<|user|>\ncolour?<|end|>\n<|assistant|>\n[grey{E}]");
    assert_string_equal(mm_template_end(mm_template_find("phi3")), "<|end|>");
    assert_null(mm_template_end(mm_template_find("vicuna_v1")));
}

static void an_open_turn_ends_where_the_answer_begins(void **state)
{
    (void)state;
    const mm_turn open[] = {{"what?", "a cat"}, {"colour?", NULL}};
    assert_string_equal(written("vicuna_v1", open, 2, true, MM_TURNS_CONVERSATION),
                        "{B}" VICUNA " USER: {I}\nwhat? ASSISTANT:[ a cat{E}]USER: colour? ASSISTANT:");
    assert_string_equal(written("plain", open + 1, 1, true, MM_TURNS_CONVERSATION), "{B}{I}colour?{N}");
}

static void an_unknown_name_lists_the_known(void **state)
{
    (void)state;
    assert_null(mm_template_find("vicuna"));
    assert_string_equal(cs_error(), "conversation template 'vicuna': unknown; known are plain, vicuna_v1, phi3");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_is_question_line_feed_answer),
        cmocka_unit_test(plain_caption_follows_the_picture),
        cmocka_unit_test(vicuna_is_llavas_text),
        cmocka_unit_test(vicuna_isolated_turns_look_like_the_first),
        cmocka_unit_test(phi3_is_llavas_text),
        cmocka_unit_test(an_open_turn_ends_where_the_answer_begins),
        cmocka_unit_test(an_unknown_name_lists_the_known),
    };
    return cmocka_run_group_tests_name("template", tests, NULL, NULL);
}
