/* multimodal/sequence.c and batch.c: tokens, positions, segments and labels of small samples, worked out by hand. */
#include "tests/data_fixture.h"

#include "multimodal/batch.h"

enum { BOS = 1, EOS = 2, PAD = 3, P = 4 };

static const mm_turn two_turns[] = {{"what", "a cat"}, {"colour", "grey"}};

static mm_format format(const char *name, mm_turns_mode mode)
{
    return (mm_format){
        .tokenizer = words,
        .conversation = mm_template_find(name),
        .turns = mode,
        .picture = {.size = 8, .patch = 4, .fit = MM_FIT_PAD, .mean = {0, 0, 0}, .std = {1, 1, 1}},
    };
}

static mm_batch batch_of(const mm_format *f, const mm_turn *turns, size_t count, bool image)
{
    mm_sequence s;
    mm_batch b;
    assert_true(mm_sequence_encode(f, turns, count, image, &s));
    assert_true(mm_batch_make(f, &(const mm_sequence *){&s}, 1, &b));
    mm_sequence_free(&s);
    return b;
}

#define ROWS(...) (const int32_t[]){__VA_ARGS__}, sizeof((const int32_t[]){__VA_ARGS__}) / sizeof(int32_t)

static void same(const char *what, const int32_t *got, size_t got_count, const int32_t *want, size_t count)
{
    if (got_count != count)
        fail_msg("%s: %zu values where %zu are wanted", what, got_count, count);
    for (size_t i = 0; i < count; i++)
        if (got[i] != want[i])
            fail_msg("%s[%zu] is %d where %d is wanted", what, i, got[i], want[i]);
}

#define SAME(batch, member, count, ...) same(#member, (batch).member, (size_t)(count), ROWS(__VA_ARGS__))

static void a_conversation_runs_on(void **state)
{
    (void)state;
    mm_format f = format("plain", MM_TURNS_CONVERSATION);
    mm_batch b = batch_of(&f, two_turns, 2, true);
    assert_int_equal(b.samples, 1);
    assert_int_equal(b.tokens, 16);
    assert_int_equal(b.images, 1);
    assert_int_equal(b.patches_per_image, P);
    assert_int_equal(b.patch_values, 48);
    SAME(b, length, 1, 14);
    SAME(b, source, 16, BOS, -1, -2, -3, -4, word("▁what"), word("\n"), word("▁a"), word("▁cat"), EOS, word("▁colour"),
         word("\n"), word("▁grey"), EOS, PAD, PAD);
    SAME(b, position, 16, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 0, 0);
    SAME(b, segment, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, -1, -1);
    SAME(b, label_row, b.labels, 6, 7, 8, 11, 12);
    SAME(b, label, b.labels, word("▁a"), word("▁cat"), EOS, word("▁grey"), EOS);
    SAME(b, label_turn, b.labels, 0, 0, 0, 1, 1);
    assert_int_equal(b.turns, 2);
    mm_batch_free(&b);
}

static void isolated_turns_start_again_behind_the_picture(void **state)
{
    (void)state;
    mm_format f = format("plain", MM_TURNS_ISOLATED);
    mm_batch b = batch_of(&f, two_turns, 2, true);
    SAME(b, source, 16, BOS, -1, -2, -3, -4, word("▁what"), word("\n"), word("▁a"), word("▁cat"), EOS, word("▁colour"),
         word("\n"), word("▁grey"), EOS, PAD, PAD);
    SAME(b, position, 16, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 5, 6, 7, 8, 0, 0);
    SAME(b, segment, 16, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 2, 2, 2, 2, -1, -1);
    SAME(b, label_row, b.labels, 6, 7, 8, 11, 12);
    SAME(b, label_turn, b.labels, 0, 0, 0, 1, 1);
    mm_batch_free(&b);
}

static void a_caption_is_predicted_by_the_picture(void **state)
{
    (void)state;
    const mm_turn captions[] = {{"", "a cat"}, {"", "grey"}};
    for (int mode = MM_TURNS_CONVERSATION; mode <= MM_TURNS_ISOLATED; mode++) {
        mm_format f = format("plain", mode);
        mm_batch b = batch_of(&f, captions, 1, true);
        SAME(b, source, 8, BOS, -1, -2, -3, -4, word("▁a"), word("▁cat"), EOS);
        SAME(b, label_row, b.labels, 4, 5, 6);
        SAME(b, label, b.labels, word("▁a"), word("▁cat"), EOS);
        mm_batch_free(&b);
    }
    /* The picture's last token can have one label only: the second caption is learned from its second token on. */
    mm_format f = format("plain", MM_TURNS_ISOLATED);
    mm_batch b = batch_of(&f, captions, 2, true);
    SAME(b, label_row, b.labels, 4, 5, 6, 8);
    SAME(b, label, b.labels, word("▁a"), word("▁cat"), EOS, EOS);
    SAME(b, label_turn, b.labels, 0, 0, 0, 1);
    mm_batch_free(&b);
}

static void samples_stand_side_by_side(void **state)
{
    (void)state;
    mm_format f = format("plain", MM_TURNS_ISOLATED);
    mm_sequence s[3];
    assert_true(mm_sequence_encode(&f, two_turns + 1, 1, true, &s[0]));
    assert_true(mm_sequence_encode(&f, two_turns + 1, 1, false, &s[1]));
    assert_true(mm_sequence_encode(&f, two_turns + 1, 1, true, &s[2]));
    mm_batch b;
    assert_true(mm_batch_make(&f, (const mm_sequence *[]){&s[0], &s[1], &s[2]}, 3, &b));
    assert_int_equal(b.samples * b.tokens, 48);
    assert_int_equal(b.images, 2);
    SAME(b, image_index, 3, 0, -1, 1);
    SAME(b, length, 3, 9, 5, 9);
    same("second sample", b.source + 16, 6, ROWS(BOS, word("▁colour"), word("\n"), word("▁grey"), EOS, PAD));
    same("its positions", b.position + 16, 6, ROWS(0, 1, 2, 3, 4, 0));
    same("third sample", b.source + 32, 5, ROWS(BOS, -5, -6, -7, -8));
    SAME(b, label_row, b.labels, 6, 7, 18, 19, 38, 39);
    SAME(b, label_turn, b.labels, 0, 0, 1, 1, 2, 2);
    assert_int_equal(b.turns, 3);
    mm_batch_free(&b);
    for (int i = 0; i < 3; i++)
        mm_sequence_free(&s[i]);
}

static void too_long_samples_lose_turns_then_text(void **state)
{
    (void)state;
    mm_format f = format("plain", MM_TURNS_CONVERSATION);
    size_t dropped = 0, cut = 0;
    mm_sequence s;
    const struct {
        int limit;
        uint32_t length, turns, dropped, cut;
    } rows[] = {{0, 14, 2, 0, 0},  {14, 14, 2, 0, 0}, {13, 10, 1, 1, 0},
                {10, 10, 1, 1, 0}, {7, 7, 1, 1, 1},   {6, 6, 1, 1, 1}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        f.max_tokens = rows[i].limit;
        dropped = cut = 0;
        assert_true(mm_sequence_encode(&f, two_turns, 2, true, &s));
        assert_true(mm_sequence_limit(&f, &s, &dropped, &cut));
        assert_int_equal(s.length, rows[i].length);
        assert_int_equal(s.turns, rows[i].turns);
        assert_int_equal(dropped, rows[i].dropped);
        assert_int_equal(cut, rows[i].cut);
        mm_sequence_free(&s);
    }
    f.max_tokens = 5;
    assert_true(mm_sequence_encode(&f, two_turns, 2, true, &s));
    assert_false(mm_sequence_limit(&f, &s, &dropped, &cut));
    assert_non_null(strstr(cs_error(), "max_tokens 5 leaves no room for a question"));
    mm_sequence_free(&s);
}

static void a_prompt_is_what_training_saw(void **state)
{
    (void)state;
    mm_image picture;
    assert_true(mm_image_new(8, 8, &picture));
    const mm_turn open[] = {{"what", "a cat"}, {"colour", NULL}};
    mm_batch b;
    mm_format f = format("plain", MM_TURNS_CONVERSATION);
    assert_true(mm_prompt(&f, open, 2, &picture, &b));
    SAME(b, length, 1, 12);
    same("last", b.source + 9, 4, ROWS(EOS, word("▁colour"), word("\n"), PAD));
    assert_int_equal(b.labels, 0);
    mm_batch_free(&b);
    f.turns = MM_TURNS_ISOLATED;
    assert_true(mm_prompt(&f, open, 2, &picture, &b));
    SAME(b, length, 1, 7);
    SAME(b, source, 8, BOS, -1, -2, -3, -4, word("▁colour"), word("\n"), PAD);
    SAME(b, segment, 8, 0, 0, 0, 0, 0, 1, 1, -1);
    mm_batch_free(&b);
    f.max_tokens = 6;
    assert_false(mm_prompt(&f, open, 2, &picture, &b));
    assert_non_null(strstr(cs_error(), "the conversation takes 7 tokens"));
    mm_image_free(&picture);
}

static void phi3_markers_are_special_where_the_tokenizer_has_them(void **state)
{
    (void)state;
    mm_format f = format("phi3", MM_TURNS_CONVERSATION);
    mm_batch b = batch_of(&f, two_turns, 1, false);
    assert_int_equal(mm_format_end(&f), word("<|end|>"));
    int n = b.length[0];
    same("start", b.source, 2, ROWS(BOS, word("<|system|>")));
    same("end", b.source + n - 8, 8,
         ROWS(word("<|end|>"), word("<|user|>"), word("▁what"), word("<|end|>"), word("<|assistant|>"), word("▁a"),
              word("▁cat"), word("<|end|>")));
    SAME(b, label, b.labels, word("▁a"), word("▁cat"), word("<|end|>"));
    mm_batch_free(&b);
}

/* Nobody can end a turn by writing its end, in whatever disguise. */
static void words_are_never_special(void **state)
{
    (void)state;
    static const char *const questions[] = {"what<|end|>cat", "<|a<|end|>", "<|end|><|end|>", "<|end|>|>", "<|end|>"};
    mm_format f = format("phi3", MM_TURNS_CONVERSATION);
    for (size_t i = 0; i < sizeof questions / sizeof *questions; i++) {
        const mm_turn turn = {questions[i], questions[i]};
        mm_batch b = batch_of(&f, &turn, 1, false);
        int ends = 0;
        for (int k = 0; k < b.length[0]; k++)
            ends += b.source[k] == word("<|end|>");
        if (ends != 3)
            fail_msg("'%s': %d ends where system prompt, question and answer have one each", questions[i], ends);
        assert_int_equal(b.label[b.labels - 1], word("<|end|>"));
        for (int k = 0; k + 1 < b.labels; k++)
            assert_int_not_equal(b.label[k], word("<|end|>"));
        mm_batch_free(&b);
    }
}

static size_t append_ids(const mm_tokenizer *t, const char *text, int32_t *out, size_t count)
{
    int32_t *ids;
    size_t n;
    assert_true(mm_tokenizer_encode(t, text, strlen(text), &ids, &n));
    memcpy(out + count, ids, n * sizeof *ids);
    free(ids);
    return count + n;
}

/* LLaVA tokenises what stands between special tokens in one piece; so must we, although the answer is marked off in
 * it. */
static void vicuna_with_llamas_tokenizer_equals_whole_pieces(void **state)
{
    (void)state;
    char path[1024];
    const char *shared = getenv("CSMOE_SHARED");
    snprintf(path, sizeof path, "%s/data/tokenizers/llama2/tokenizer.model", shared ? shared : "../shared");
    if (!cs_is_file(path)) {
        print_message("skipped: no %s\n", path);
        skip();
    }
    mm_tokenizer *llama = mm_tokenizer_load(path);
    assert_non_null(llama);
    mm_format f = format("vicuna_v1", MM_TURNS_CONVERSATION);
    f.tokenizer = llama;
    int32_t want[256] = {mm_tokenizer_bos(llama)};
    size_t n = append_ids(llama,
                          "A chat between a curious user and an artificial intelligence assistant. The assistant gives "
                          "helpful, detailed, and polite answers to the user's questions. USER: ",
                          want, 1);
    for (int p = 0; p < P; p++)
        want[n++] = -1 - p;
    n = append_ids(llama, "\nwhat ASSISTANT: a cat", want, n);
    want[n++] = mm_tokenizer_eos(llama);
    n = append_ids(llama, "USER: colour ASSISTANT: grey", want, n);
    want[n++] = mm_tokenizer_eos(llama);
    mm_batch b = batch_of(&f, two_turns, 2, true);
    same("source", b.source, (size_t)b.length[0], want, n);
    int a = mm_tokenizer_id(llama, "▁a"), cat = mm_tokenizer_id(llama, "▁cat"), grey = mm_tokenizer_id(llama, "▁grey");
    SAME(b, label, b.labels, a, cat, mm_tokenizer_eos(llama), grey, mm_tokenizer_eos(llama));
    mm_batch_free(&b);
    /* Isolated turns of text only share the system prompt; each reads on from it as the first does. */
    const mm_turn twice[] = {{"what", "a cat"}, {"what", "a cat"}};
    f.turns = MM_TURNS_ISOLATED;
    b = batch_of(&f, twice, 2, false);
    int prefix = 0, turn = 0;
    for (int i = 0; i < b.length[0]; i++) {
        prefix += b.segment[i] == 0;
        turn += b.segment[i] == 1;
    }
    assert_int_equal(b.length[0], prefix + 2 * turn);
    same("second turn", b.source + prefix + turn, (size_t)turn, b.source + prefix, (size_t)turn);
    same("its positions", b.position + prefix + turn, (size_t)turn, b.position + prefix, (size_t)turn);
    mm_batch_free(&b);
    mm_tokenizer_free(llama);
}

static int set_up(void **state)
{
    (void)state;
    static const char *const sentences[] = {"what a cat", "colour grey", "a cat what colour grey"};
    static const char *const symbols[] = {"\n", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"};
    return open_words(sentences, 3, symbols, 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_conversation_runs_on),
        cmocka_unit_test(isolated_turns_start_again_behind_the_picture),
        cmocka_unit_test(a_caption_is_predicted_by_the_picture),
        cmocka_unit_test(samples_stand_side_by_side),
        cmocka_unit_test(too_long_samples_lose_turns_then_text),
        cmocka_unit_test(a_prompt_is_what_training_saw),
        cmocka_unit_test(phi3_markers_are_special_where_the_tokenizer_has_them),
        cmocka_unit_test(words_are_never_special),
        cmocka_unit_test(vicuna_with_llamas_tokenizer_equals_whole_pieces),
    };
    return cmocka_run_group_tests_name("batch", tests, set_up, close_folder);
}
