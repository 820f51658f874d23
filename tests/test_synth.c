/* The built-in data set: right answers, balance, the same bytes again, and folders that are not its own. */
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
#include "multimodal/dataset.h"
#include "multimodal/image.h"
#include "multimodal/synth.h"
#include "multimodal/synth_scene.h"
#include "tests/folder_fixture.h"

static mm_scene scene_of(uint64_t index, cs_random *random)
{
    mm_scene scene;
    *random = (cs_random){7, CS_STREAM_SYNTH, index << 20};
    mm_scene_random(&scene, random);
    return scene;
}

static int find(const char *const *names, int count, const char *name)
{
    for (int i = 0; i < count; i++)
        if (!strncmp(name, names[i], strlen(names[i])))
            return i;
    return -1;
}

/* The place of the one object that a colour, or a shape where that is NULL, means. */
static int place_of(const mm_scene *s, const char *color, const char *shape)
{
    int c = color ? find(mm_color_names, MM_SCENE_COLORS, color) : -1;
    int k = shape ? find(mm_shape_names, MM_SCENE_SHAPES, shape) : -1;
    assert_true(c >= 0 || k >= 0);
    assert_int_equal(mm_scene_count(s, c, k), 1);
    int place = 0;
    while (!s->places[place].there || (c >= 0 ? s->places[place].color != c : s->places[place].shape != k))
        place++;
    return place;
}

static const char *yes_no(bool yes)
{
    return yes ? "yes" : "no";
}

/* The right answer, found from the question's words alone; "" for a description. */
static const char *oracle(const mm_scene *s, const char *question)
{
    static const char *const numbers[] = {"zero", "one", "two", "three", "four"};
    static char text[32];
    static const int columns[] = {1, 0, 2, 1}, rows[] = {0, 1, 1, 2};
    char a[16], b[16], word[16];
    const mm_object *o = s->places;
    int n = 0;
    if (!strcmp(question, "How many objects are there?"))
        return numbers[o[0].there + o[1].there + o[2].there + o[3].there];
    if (sscanf(question, "How many %15s objects are there%n", a, &n) == 1 && n)
        return numbers[mm_scene_count(s, find(mm_color_names, MM_SCENE_COLORS, a), -1)];
    if (sscanf(question, "How many %15s are there%n", a, &n) == 1 && n)
        return numbers[mm_scene_count(s, -1, find(mm_shape_names, MM_SCENE_SHAPES, a))];
    if (sscanf(question, "Is there an object at the %15s", a) == 1)
        return yes_no(o[find(mm_place_names, MM_SCENE_PLACES, a)].there);
    if (sscanf(question, "Are there more than %15s objects%n", a, &n) == 1 && n)
        return yes_no(mm_scene_count(s, -1, -1) > find(numbers, 5, a));
    if (sscanf(question, "What is at the %15s", a) == 1) {
        const mm_object *at = &o[find(mm_place_names, MM_SCENE_PLACES, a)];
        snprintf(text, sizeof text, "%s %s", mm_color_names[at->color], mm_shape_names[at->shape]);
        return at->there ? text : "nothing";
    }
    if (sscanf(question, "Is there %15s %15s object%n", word, a, &n) == 2 && n)
        return yes_no(mm_scene_count(s, find(mm_color_names, MM_SCENE_COLORS, a), -1));
    if (sscanf(question, "Is there %15s %15s %15s", word, a, b) == 3)
        return yes_no(
            mm_scene_count(s, find(mm_color_names, MM_SCENE_COLORS, a), find(mm_shape_names, MM_SCENE_SHAPES, b)));
    if (sscanf(question, "Is there a %15s", a) == 1)
        return yes_no(mm_scene_count(s, -1, find(mm_shape_names, MM_SCENE_SHAPES, a)));
    if (!strcmp(question, "What color is the background?"))
        return mm_background_names[s->background];
    if (sscanf(question, "What %5s is the %15s object%n", word, a, &n) == 2 && n) {
        int place = find(mm_place_names, MM_SCENE_PLACES, a);
        place = place < 0 ? place_of(s, a, NULL) : place;
        assert_true(o[place].there);
        return !strcmp(word, "color") ? mm_color_names[o[place].color] : mm_shape_names[o[place].shape];
    }
    if (sscanf(question, "What color is the %15s", a) == 1)
        return mm_color_names[o[place_of(s, NULL, a)].color];
    if (sscanf(question, "Where is the %15s object%n", a, &n) == 1 && n)
        return mm_place_names[place_of(s, a, NULL)];
    if (sscanf(question, "Where is the %15s", a) == 1)
        return mm_place_names[place_of(s, NULL, a)];
    if (sscanf(question, "Is the %15s object %5s of the %15s object", a, word, b) == 3) {
        int left = columns[place_of(s, a, NULL)], right = columns[place_of(s, b, NULL)];
        assert_int_not_equal(left, right);
        return yes_no(!strcmp(word, "left") ? left < right : left > right);
    }
    if (sscanf(question, "Is the %15s object %5s the %15s object", a, word, b) == 3) {
        int upper = rows[place_of(s, a, NULL)], lower = rows[place_of(s, b, NULL)];
        assert_int_not_equal(upper, lower);
        return yes_no(!strcmp(word, "above") ? upper < lower : upper > lower);
    }
    if (sscanf(question, "Is the %15s object a %15s", a, b) == 2) {
        const mm_object *at = &o[find(mm_place_names, MM_SCENE_PLACES, a)];
        assert_true(at->there);
        return yes_no(at->shape == find(mm_shape_names, MM_SCENE_SHAPES, b));
    }
    if (sscanf(question, "Is the %15s object %15s", a, b) == 2) {
        const mm_object *at = &o[find(mm_place_names, MM_SCENE_PLACES, a)];
        assert_true(at->there);
        return yes_no(at->color == find(mm_color_names, MM_SCENE_COLORS, b));
    }
    if (sscanf(question, "Are there more %15s objects than %15s objects", a, b) == 2)
        return yes_no(mm_scene_count(s, find(mm_color_names, MM_SCENE_COLORS, a), -1) >
                      mm_scene_count(s, find(mm_color_names, MM_SCENE_COLORS, b), -1));
    assert_string_equal(question, "Describe the picture.");
    return "";
}

static void answers_are_right_and_balanced(void **state)
{
    (void)state;
    int yes = 0, no = 0, descriptions = 0;
    for (uint64_t i = 0; i < 6000; i++) {
        cs_random random;
        mm_scene scene = scene_of(i, &random);
        mm_scene_turn turns[MM_TALK_TURNS];
        int count = mm_scene_talk(&scene, &random, turns);
        assert_in_range(count, 6, 8);
        for (int t = 0; t < count; t++) {
            const char *right = oracle(&scene, turns[t].question);
            if (*right)
                assert_string_equal(turns[t].answer, right);
            descriptions += !*right;
            yes += !strcmp(right, "yes");
            no += !strcmp(right, "no");
            for (int earlier = 0; earlier < t; earlier++)
                assert_string_not_equal(turns[t].question, turns[earlier].question);
        }
    }
    assert_int_equal(descriptions, 6000);
    assert_true(yes + no > 4000);
    assert_in_range(100 * yes / (yes + no), 48, 52);
}

static void describes_in_reading_order(void **state)
{
    (void)state;
    mm_scene scene = {{{true, 0, 0}, {true, 5, 3}, {false}, {true, 2, 1}}, 0};
    cs_random random = {1, CS_STREAM_SYNTH, 0};
    mm_scene_turn turns[MM_TALK_TURNS];
    int count = mm_scene_talk(&scene, &random, turns);
    for (int t = 0; t < count; t++) {
        if (!strcmp(turns[t].question, "Describe the picture.")) {
            assert_string_equal(turns[t].answer, "top red ring, left orange cross, bottom blue square");
            return;
        }
    }
    fail_msg("no description");
}

static void objects_are_drawn_where_they_are(void **state)
{
    (void)state;
    mm_image image;
    assert_true(mm_image_new(MM_SCENE_SIZE, MM_SCENE_SIZE, &image));
    for (int shape = 0; shape < MM_SCENE_SHAPES; shape++) {
        for (int half = 10; half <= 11; half++) {
            mm_scene scene = {.places[1] = {true, 0, shape, half, 1, -1, {0}}, .background = 0};
            mm_scene_draw(&scene, &image);
            int red = 0, background = 0, left = 64, right = 0, top = 64, bottom = 0;
            for (int i = 0; i < 64 * 64; i++) {
                const uint8_t *p = image.rgb + 3 * i;
                background += p[0] == 12 && p[1] == 12 && p[2] == 14;
                red += p[0] == 235 && p[1] == 40 && p[2] == 45;
                if (p[0] == 12)
                    continue;
                left = i % 64 < left ? i % 64 : left;
                right = i % 64 > right ? i % 64 : right;
                top = i / 64 < top ? i / 64 : top;
                bottom = i / 64 > bottom ? i / 64 : bottom;
            }
            assert_true(red > 150 && red + background > 64 * 64 - 120);
            assert_in_range(left + right + 1, 2 * 13 - 1, 2 * 13 + 1);
            assert_in_range(top + bottom + 1, 2 * 31 - 1, 2 * 31 + 1);
            assert_in_range(right - left + 1, 2 * half - 3, 2 * half + 1);
            /* Rings and slopes have edges in between; the other two lie on whole pixels or nearly so. */
            if (shape == 0 || shape == 2)
                assert_true(red + background < 64 * 64 - 10);
        }
    }
    mm_image_free(&image);
}

static char *whole(const char *name, size_t *size)
{
    char *path = in_folder(name), *data = cs_read_file(path, 1 << 24, size);
    if (!data)
        fail_msg("%s", cs_error());
    return data;
}

static void same(const char *a, const char *b, bool equal)
{
    size_t a_size, b_size;
    char *a_data = whole(a, &a_size), *b_data = whole(b, &b_size);
    assert_int_equal(equal, a_size == b_size && memcmp(a_data, b_data, a_size) == 0);
    free(a_data);
    free(b_data);
}

static bool synth(const char *name, uint32_t images, uint64_t seed)
{
    return mm_synth_write(&(mm_synth_options){in_folder(name), images, seed});
}

static void the_same_seed_gives_the_same_bytes(void **state)
{
    (void)state;
    assert_true(synth("a/", 12, 1));
    assert_true(synth("b", 12, 1));
    assert_true(synth("c", 30, 1));
    assert_true(synth("d", 12, 2));
    same("a/train.json", "b/train.json", true);
    same("a/test.json", "b/test.json", true);
    same("a/images/train-000011.png", "b/images/train-000011.png", true);
    same("a/images/train-000011.png", "c/images/train-000011.png", true);
    same("a/images/test-000000.png", "c/images/test-000000.png", true);
    same("a/train.json", "d/train.json", false);
}

static void the_files_are_in_llavas_format(void **state)
{
    (void)state;
    static const char *const splits[] = {"set/train.json", "set/test.json"};
    static const size_t counts[] = {60, 6};
    assert_true(synth("set", 60, 0));
    for (int i = 0; i < 2; i++) {
        char *path = in_folder(splits[i]);
        mm_dataset *d = mm_dataset_open(path, &(mm_dataset_params){.decode = true});
        if (!d)
            fail_msg("%s", cs_error());
        assert_int_equal(d->count, counts[i]);
        assert_int_equal(d->image_count, counts[i]);
        assert_in_range(d->turns, 6 * counts[i], 8 * counts[i]);
        mm_dataset_close(d);
    }
    for (int test = 0; test < 6; test++)
        for (int train = 0; train < 60; train++) {
            char a[64], b[64];
            snprintf(a, sizeof a, "set/images/test-%06d.png", test);
            snprintf(b, sizeof b, "set/images/train-%06d.png", train);
            same(a, b, false);
        }
}

static void spares_what_is_not_its_own(void **state)
{
    (void)state;
    assert_true(cs_make_folder(in_folder("other")));
    assert_true(synth("other", 2, 0));
    assert_true(synth("other", 3, 0));
    same("other/train.json", "set/train.json", false);
    assert_true(cs_remove_folder(in_folder("other")));
    assert_true(cs_make_folder(in_folder("other")));
    assert_true(cs_write_file(in_folder("other/train.json"), "mine", 4));
    assert_false(synth("other", 2, 0));
    assert_non_null(strstr(cs_error(), "holds something else"));
    size_t size;
    char *data = whole("other/train.json", &size);
    assert_string_equal(data, "mine");
    free(data);
    assert_true(cs_write_file(in_folder("plain"), "x", 1));
    assert_false(synth("plain", 2, 0));
    assert_non_null(strstr(cs_error(), "plain"));
    assert_false(synth("plain/below", 2, 0));
    assert_false(synth("none", 0, 0));
    assert_non_null(strstr(cs_error(), "at least one picture"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_are_right_and_balanced),   cmocka_unit_test(describes_in_reading_order),
        cmocka_unit_test(objects_are_drawn_where_they_are), cmocka_unit_test(the_same_seed_gives_the_same_bytes),
        cmocka_unit_test(the_files_are_in_llavas_format),   cmocka_unit_test(spares_what_is_not_its_own),
    };
    return cmocka_run_group_tests_name("synth", tests, make_folder, remove_folder);
}
