/* multimodal/loader.c: the same batches whenever they are asked for, every sample once an epoch, errors handed over. */
#include "tests/data_fixture.h"

#include "multimodal/loader.h"

enum { SAMPLES = 23, BATCH = 4, STEPS = 6 };

static mm_dataset *data;

/* Sample i has picture i % 7 (text only where that is 6) and 1 + i % 3 turns. */
static void write_samples(const char *name, const char *extra)
{
    FILE *f = fopen(in_folder(name), "w");
    assert_non_null(f);
    for (int i = 0; i < SAMPLES; i++) {
        bool image = i % 7 != 6;
        fprintf(f, "{\"id\": %d, ", i);
        if (image)
            fprintf(f, "\"image\": \"%d.png\", ", i % 7);
        fprintf(f, "\"conversations\": [");
        for (int t = 0; t <= i % 3; t++)
            fprintf(f, "%s{\"from\": \"human\", \"value\": \"%swhat\"}, {\"from\": \"gpt\", \"value\": \"grey\"}",
                    t ? ", " : "", image && !t ? "<image>\\n" : "");
        fprintf(f, "]}\n");
    }
    fputs(extra, f);
    fclose(f);
}

static int set_up(void **state)
{
    (void)state;
    static const char *const sentences[] = {"what grey", "what grey"}, *const symbols[] = {"\n"};
    if (open_words(sentences, 2, symbols, 1) != 0)
        return -1;
    char name[32];
    for (int i = 0; i < 6; i++) {
        snprintf(name, sizeof name, "%d.png", i);
        write_picture(name, 8, (uint8_t)(40 * i + 5));
    }
    write_samples("data.jsonl", "");
    data = mm_dataset_open(in_folder("data.jsonl"), &(mm_dataset_params){0});
    return data ? 0 : -1;
}

static int tear_down(void **state)
{
    mm_dataset_close(data);
    return close_folder(state);
}

static mm_loader_params params(void)
{
    return (mm_loader_params){
        .format = {.tokenizer = words,
                   .conversation = mm_template_find("plain"),
                   .turns = MM_TURNS_ISOLATED,
                   .picture = {.size = 8, .patch = 4, .fit = MM_FIT_PAD, .std = {1, 1, 1}}},
        .batch = BATCH,
        .shuffle = true,
        .group_by_length = true,
        .seed = 5,
        .prefetch = 2,
        .cache_bytes = 3 * 8 * 8 * 4,
    };
}

static mm_batch *next(mm_loader *l)
{
    mm_batch *b;
    if (!mm_loader_next(l, &b))
        fail_msg("%s", cs_error());
    return b;
}

static void drop(mm_batch *b)
{
    mm_batch_free(b);
    free(b);
}

static void same_bytes(const void *a, const void *b, size_t bytes)
{
    assert_memory_equal(a, b, bytes);
}

static void same_batch(const mm_batch *a, const mm_batch *b)
{
    size_t rows = (size_t)a->samples * (size_t)a->tokens;
    assert_int_equal(a->samples, b->samples);
    assert_int_equal(a->tokens, b->tokens);
    assert_int_equal(a->images, b->images);
    assert_int_equal(a->labels, b->labels);
    same_bytes(a->sample_index, b->sample_index, (size_t)a->samples * 4);
    same_bytes(a->source, b->source, rows * 4);
    same_bytes(a->position, b->position, rows * 4);
    same_bytes(a->segment, b->segment, rows * 4);
    same_bytes(a->label, b->label, (size_t)a->labels * 4);
    if (a->images)
        same_bytes(a->patches, b->patches,
                   (size_t)(a->images * a->patches_per_image * a->patch_values) * sizeof(float));
}

static void an_epoch_has_every_sample_once(void **state)
{
    (void)state;
    for (int grouped = 0; grouped < 2; grouped++) {
        mm_loader_params p = params();
        p.group_by_length = grouped;
        mm_loader *l = mm_loader_open(data, &p, 0);
        assert_non_null(l);
        assert_int_equal(mm_loader_steps_per_epoch(l), STEPS);
        int first[SAMPLES], differs = 0;
        for (int epoch = 0; epoch < 3; epoch++) {
            int seen[SAMPLES] = {0}, n = 0;
            for (int step = 0; step < STEPS; step++) {
                mm_batch *b = next(l);
                for (int i = 0; i < b->samples; i++, n++) {
                    seen[b->sample_index[i]]++;
                    differs += epoch && first[n] != (int)b->sample_index[i];
                    if (!epoch)
                        first[n] = (int)b->sample_index[i];
                }
                drop(b);
            }
            for (int i = 0; i < SAMPLES; i++)
                assert_int_equal(seen[i], 1);
        }
        assert_true(differs > SAMPLES);
        mm_loader_close(l);
    }
}

static void resuming_gives_the_same_batches(void **state)
{
    (void)state;
    mm_loader_params p = params();
    p.flip_x = p.flip_y = true;
    p.shift = 3;
    mm_loader *whole = mm_loader_open(data, &p, 0);
    p.prefetch = 5;
    p.cache_bytes = 0;
    mm_loader *resumed = mm_loader_open(data, &p, 9);
    assert_true(whole && resumed);
    for (int step = 0; step < 9; step++)
        drop(next(whole));
    for (int step = 9; step < 20; step++) {
        mm_batch *a = next(whole), *b = next(resumed);
        same_batch(a, b);
        drop(a);
        drop(b);
    }
    assert_int_equal(mm_loader_get_stats(whole).cached_bytes, 3 * 8 * 8 * 4);
    assert_int_equal(mm_loader_get_stats(resumed).cached_bytes, 0);
    mm_loader_close(whole);
    mm_loader_close(resumed);
}

/* Every flip and shift that may be drawn, and no other, comes up; the next epoch draws anew. */
static void augmentation_is_drawn_per_sample_and_epoch(void **state)
{
    (void)state;
    mm_loader_params p = params();
    p.shuffle = p.group_by_length = false;
    p.flip_x = true;
    p.shift = 1;
    mm_image picture;
    float plain[4 * 48], want[4 * 48];
    int drawn[2][3][3] = {0};
    assert_true(mm_image_load(in_folder("0.png"), &picture));
    mm_loader *l = mm_loader_open(data, &p, 0);
    for (int step = 0; step < 60 * STEPS; step++) {
        mm_batch *b = next(l);
        for (int i = 0; i < b->samples; i++) {
            if (b->sample_index[i] % 7)
                continue;
            memcpy(plain, b->patches + (size_t)b->image_index[i] * 4 * 48, sizeof plain);
            int found = 0;
            for (int n = 0; n < 18; n++) {
                mm_augment a = {.flip_x = n / 9, .dx = n / 3 % 3 - 1, .dy = n % 3 - 1};
                assert_true(mm_image_patches(&picture, &p.format.picture, &a, want));
                if (!memcmp(plain, want, sizeof want)) {
                    drawn[n / 9][n / 3 % 3][n % 3]++;
                    found++;
                }
            }
            assert_int_equal(found, 1);
        }
        drop(b);
    }
    for (int n = 0; n < 18; n++)
        assert_true(drawn[n / 9][n / 3 % 3][n % 3] > 0);
    mm_loader_close(l);
    mm_image_free(&picture);
}

static void another_seed_gives_another_order(void **state)
{
    (void)state;
    mm_loader_params p = params();
    mm_loader *one = mm_loader_open(data, &p, 0);
    p.seed = 6;
    mm_loader *two = mm_loader_open(data, &p, 0);
    int differs = 0;
    for (int step = 0; step < STEPS; step++) {
        mm_batch *a = next(one), *b = next(two);
        for (int i = 0; i < a->samples && i < b->samples; i++)
            differs += a->sample_index[i] != b->sample_index[i];
        drop(a);
        drop(b);
    }
    assert_true(differs > SAMPLES / 2);
    mm_loader_close(one);
    mm_loader_close(two);
}

static void grouping_saves_padding(void **state)
{
    (void)state;
    uint64_t padding[2];
    for (int grouped = 0; grouped < 2; grouped++) {
        mm_loader_params p = params();
        p.group_by_length = grouped;
        p.shuffle = !grouped;
        p.format.turns = MM_TURNS_CONVERSATION;
        p.epochs = 1;
        mm_loader *l = mm_loader_open(data, &p, 0);
        for (mm_batch *b; (b = next(l));)
            drop(b);
        mm_loader_stats s = mm_loader_get_stats(l);
        padding[grouped] = s.padding;
        assert_true(s.tokens > 0);
        mm_loader_close(l);
    }
    assert_true(padding[1] < padding[0]);
}

static void the_last_epoch_ends(void **state)
{
    (void)state;
    mm_loader_params p = params();
    p.shuffle = p.group_by_length = false;
    p.epochs = 1;
    mm_loader *l = mm_loader_open(data, &p, 0);
    uint32_t expected = 0;
    for (mm_batch *b; (b = next(l));) {
        for (int i = 0; i < b->samples; i++)
            assert_int_equal(b->sample_index[i], expected++);
        drop(b);
    }
    assert_int_equal(expected, SAMPLES);
    assert_null(next(l));
    mm_loader_close(l);
}

static void patches_are_the_pictures(void **state)
{
    (void)state;
    mm_loader_params p = params();
    mm_loader *l = mm_loader_open(data, &p, 3);
    for (int step = 0; step < STEPS; step++) {
        mm_batch *b = next(l);
        for (int i = 0; i < b->samples; i++) {
            if (b->image_index[i] < 0)
                continue;
            char name[32];
            snprintf(name, sizeof name, "%u.png", b->sample_index[i] % 7);
            mm_image picture;
            float want[4 * 48];
            assert_true(mm_image_load(in_folder(name), &picture));
            assert_true(mm_image_patches(&picture, &p.format.picture, NULL, want));
            same_bytes(b->patches + (size_t)b->image_index[i] * 4 * 48, want, sizeof want);
            mm_image_free(&picture);
        }
        drop(b);
    }
    mm_loader_close(l);
}

static void closing_early_stops_the_thread(void **state)
{
    (void)state;
    mm_loader_params p = params();
    for (int taken = 0; taken < 3; taken++) {
        mm_loader *l = mm_loader_open(data, &p, 0);
        assert_non_null(l);
        for (int i = 0; i < taken; i++)
            drop(next(l));
        if (taken == 1)
            usleep(20000); /* the queue is full and the thread waits */
        mm_loader_close(l);
    }
    mm_loader_close(NULL);
}

/* Samples to which max_tokens leaves no answer are left out: each batch has something to learn. */
static void samples_without_an_answer_are_left_out(void **state)
{
    (void)state;
    FILE *f = fopen(in_folder("long.jsonl"), "w");
    assert_non_null(f);
    for (int i = 0; i < 5; i++) {
        fprintf(f, "{\"id\": %d, \"conversations\": [{\"from\": \"human\", \"value\": \"what", i);
        for (int word = 0; word < (i % 2 ? 20 : 0); word++)
            fprintf(f, " what");
        fprintf(f, "\"}, {\"from\": \"gpt\", \"value\": \"grey\"}]}\n");
    }
    fclose(f);
    mm_dataset *d = mm_dataset_open(in_folder("long.jsonl"), &(mm_dataset_params){0});
    assert_non_null(d);
    mm_loader_params p = params();
    p.batch = p.epochs = 1;
    p.format.max_tokens = 10;
    mm_loader *l = mm_loader_open(d, &p, 0);
    assert_non_null(l);
    assert_int_equal(mm_loader_steps_per_epoch(l), 3);
    int seen = 0;
    for (mm_batch *b; (b = next(l)); seen++) {
        assert_true(b->labels > 0 && b->sample_index[0] % 2 == 0);
        drop(b);
    }
    assert_int_equal(seen, 3);
    mm_loader_close(l);
    p.format.max_tokens = 2;
    assert_null(mm_loader_open(d, &p, 0));
    assert_non_null(strstr(cs_error(), "max_tokens 2"));
    mm_dataset_close(d);
}

/* Picture 23 is there when the data set is opened and cannot be decoded. */
static mm_dataset *open_with_broken(void)
{
    write_text("broken.png", "not a picture");
    write_samples("broken.jsonl",
                  "{\"id\": 23, \"image\": \"broken.png\", \"conversations\": [{\"from\": \"human\", \"value\": "
                  "\"<image>\"}, {\"from\": \"gpt\", \"value\": \"grey\"}]}\n");
    mm_dataset *d = mm_dataset_open(in_folder("broken.jsonl"), &(mm_dataset_params){0});
    assert_non_null(d);
    return d;
}

static void an_unreadable_picture_is_handed_over(void **state)
{
    (void)state;
    mm_dataset *d = open_with_broken();
    mm_loader_params p = params();
    mm_loader *l = mm_loader_open(d, &p, 0);
    mm_batch *b;
    int steps = 0;
    for (; steps < STEPS && mm_loader_next(l, &b); steps++)
        drop(b);
    assert_true(steps < STEPS);
    assert_non_null(strstr(cs_error(), "broken.png"));
    cs_fail("something else");
    assert_false(mm_loader_next(l, &b));
    assert_non_null(strstr(cs_error(), "broken.png"));
    mm_loader_close(l);
    mm_dataset_close(d);
}

static void an_unreadable_picture_can_be_skipped(void **state)
{
    (void)state;
    mm_dataset *d = open_with_broken();
    mm_loader_params p = params();
    p.skip_bad = true;
    mm_loader *l = mm_loader_open(d, &p, 0), *resumed = mm_loader_open(d, &p, 4);
    int seen[SAMPLES + 1] = {0};
    for (int step = 0; step < STEPS; step++) {
        mm_batch *b = next(l), *again = step >= 4 ? next(resumed) : NULL;
        for (int i = 0; i < b->samples; i++)
            seen[b->sample_index[i]]++;
        if (again) {
            same_batch(b, again);
            drop(again);
        }
        drop(b);
    }
    assert_int_equal(seen[0], 2);
    assert_int_equal(seen[1], 1);
    assert_int_equal(seen[SAMPLES], 0);
    assert_int_equal(mm_loader_get_stats(l).bad_images, 1);
    mm_loader_close(l);
    mm_loader_close(resumed);
    mm_dataset_close(d);
}

static void wrong_parameters_are_refused(void **state)
{
    (void)state;
    mm_loader_params p = params();
    p.format.picture.patch = 3;
    assert_null(mm_loader_open(data, &p, 0));
    assert_non_null(strstr(cs_error(), "patches of 3 pixels do not divide pictures of 8"));
    p = params();
    p.batch = 0;
    assert_null(mm_loader_open(data, &p, 0));
    p = params();
    p.format.max_tokens = 5;
    assert_null(mm_loader_open(data, &p, 0));
    assert_non_null(strstr(cs_error(), "data.jsonl:1: sample 0: max_tokens 5 leaves no room"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_epoch_has_every_sample_once),
        cmocka_unit_test(resuming_gives_the_same_batches),
        cmocka_unit_test(augmentation_is_drawn_per_sample_and_epoch),
        cmocka_unit_test(another_seed_gives_another_order),
        cmocka_unit_test(grouping_saves_padding),
        cmocka_unit_test(the_last_epoch_ends),
        cmocka_unit_test(patches_are_the_pictures),
        cmocka_unit_test(closing_early_stops_the_thread),
        cmocka_unit_test(samples_without_an_answer_are_left_out),
        cmocka_unit_test(an_unreadable_picture_is_handed_over),
        cmocka_unit_test(an_unreadable_picture_can_be_skipped),
        cmocka_unit_test(wrong_parameters_are_refused),
    };
    return cmocka_run_group_tests_name("loader", tests, set_up, tear_down);
}
