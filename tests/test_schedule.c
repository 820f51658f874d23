/* nn/competition_schedule: rules by hand, limits of a drawn table, the authors' tables. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/error.h"
#include "nn/competition_schedule.h"

/* Places rows of hits (draw 0) and misses (draw 0.9) with room for `max_layers`. */
static void place(const char *const *hits, int layers, int steps, int max_layers, uint8_t *table)
{
    float draws[64];
    for (int l = 0; l < layers; l++)
        for (int i = 0; i < steps; i++)
            draws[l * steps + i] = hits[l][i] == '1' ? 0.0f : 0.9f;
    assert_true(nn_competition_place(draws, layers, steps, 0.5, max_layers, table));
}

static void assert_rows(const uint8_t *table, const char *const *wanted, int layers, int steps)
{
    for (int l = 0; l < layers; l++)
        for (int i = 0; i < steps; i++)
            if (table[l * steps + i] != wanted[l][i] - '0')
                fail_msg("layer %d, step %d is %d", l, i, table[l * steps + i]);
}

static void hits_are_kept_while_there_is_room(void **state)
{
    (void)state;
    const char *const hits[] = {"01001", "01100"};
    uint8_t table[10];
    place(hits, 2, 5, 2, table);
    assert_rows(table, hits, 2, 5);
}

static void a_hit_without_room_moves_left_first_then_right(void **state)
{
    (void)state;
    const char *const left[] = {"00100", "00100"}, *const left_wanted[] = {"00100", "01000"};
    const char *const right[] = {"11000", "01000", "01000"}, *const right_wanted[] = {"11000", "00100", "00010"};
    const char *const full[] = {"11", "11"}, *const full_wanted[] = {"11", "00"};
    uint8_t table[15];
    place(left, 2, 5, 1, table);
    assert_rows(table, left_wanted, 2, 5);
    place(right, 3, 5, 1, table);
    assert_rows(table, right_wanted, 3, 5);
    place(full, 2, 2, 1, table);
    assert_rows(table, full_wanted, 2, 2);
}

/* The second layer's first hit moves right to step 1; its own hit there is absorbed where two layers fit. */
static void a_hit_on_a_step_taken_by_a_shift_is_absorbed(void **state)
{
    (void)state;
    const char *const hits[] = {"100", "100", "110"}, *const wanted[] = {"100", "100", "010"};
    uint8_t table[9];
    place(hits, 3, 3, 2, table);
    assert_rows(table, wanted, 3, 3);
}

static void a_draw_is_compared_in_double(void **state)
{
    (void)state;
    const float draws[] = {0.1f}; /* 0.100000001490116 */
    uint8_t table[1];
    assert_true(nn_competition_place(draws, 1, 1, 0.1, 1, table));
    assert_int_equal(table[0], 0);
    assert_true(nn_competition_place(draws, 1, 1, 0.1000001, 1, table));
    assert_int_equal(table[0], 1);
}

static void a_drawn_table_keeps_its_limits(void **state)
{
    (void)state;
    nn_train_state a = {0}, b = {0}, c = {0};
    assert_true(nn_competition_draw(28, 2000, 0.05, 0.05, 3, 7, &a));
    assert_true(nn_competition_draw(28, 2000, 0.05, 0.05, 3, 7, &b));
    assert_true(nn_competition_draw(28, 2000, 0.05, 0.05, 3, 8, &c));
    assert_int_equal(a.schedule_first, 100);
    assert_int_equal(a.schedule_steps, 1900);
    assert_int_equal(a.schedule_layers, 28);
    int total = 0;
    for (int64_t i = 0; i < 1900; i++) {
        int layers = 0;
        for (int l = 0; l < 28; l++)
            layers += a.schedule[l * 1900 + i];
        assert_in_range(layers, 0, 3);
        total += layers;
    }
    assert_in_range(total, 28 * 1900 * 4 / 100, 28 * 1900 * 6 / 100);
    assert_memory_equal(a.schedule, b.schedule, 28 * 1900);
    assert_memory_not_equal(a.schedule, c.schedule, 28 * 1900);
    free(a.schedule);
    free(b.schedule);
    free(c.schedule);
}

static void a_warm_up_of_everything_is_refused(void **state)
{
    (void)state;
    nn_train_state s = {0};
    assert_false(nn_competition_draw(2, 10, 0.1, 1.0, 1, 1, &s));
    assert_non_null(strstr(cs_error(), "leaves none of 10"));
    assert_null(s.schedule);
    assert_int_equal(nn_competition_warmup(0.05, 16632), 831);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hits_are_kept_while_there_is_room),
        cmocka_unit_test(a_hit_without_room_moves_left_first_then_right),
        cmocka_unit_test(a_hit_on_a_step_taken_by_a_shift_is_absorbed),
        cmocka_unit_test(a_draw_is_compared_in_double),
        cmocka_unit_test(a_drawn_table_keeps_its_limits),
        cmocka_unit_test(a_warm_up_of_everything_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
