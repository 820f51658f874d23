/* The command line: parsing, checking, exit status; names are matched to the nearest known one. And what the program
 * sets in its environment. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/nearest.h"
#include "tools/commands.h"
#include "tools/cpu_driver.h"
#include "tools/options.h"

static bool json;
static int64_t images;
static double rate;
static const char *name, *dir, *extra;
static cs_strings sets, files;

static const cs_option options[] = {
    {"json", CS_OPT_FLAG, &json, .doc = "write JSON"},
    {"images", CS_OPT_INT, &images, 1, 100, "N", "pictures"},
    {"rate", CS_OPT_FLOAT, &rate, 0, 1, "R", "a rate"},
    {"name", CS_OPT_STRING, &name, .arg = "NAME", .doc = "a name"},
    {"set", CS_OPT_LIST, &sets, .arg = "KEY=VALUE", .doc = "changes a key"},
};
static const cs_positional two[] = {{"DIR", CS_ONE, &dir, "a folder"}, {"EXTRA", CS_OPTIONAL, &extra, "more"}};
static const cs_positional many[] = {{"FILE", CS_MANY, &files, "files"}};
static const cs_syntax syntax = {"try", "Tries.", options, CS_COUNT(options), two, CS_COUNT(two)};
static const cs_syntax syntax_many = {"many", "Tries.", NULL, 0, many, CS_COUNT(many)};

static int reset(void **state)
{
    (void)state;
    free(sets.items);
    free(files.items);
    json = false;
    images = 4;
    rate = 0.5;
    name = dir = extra = NULL;
    sets = files = (cs_strings){0};
    return 0;
}

/* Parses a NULL-ended command line; -1 when the command may run, else the exit status. */
static int parse(const cs_syntax *s, char **argv)
{
    int argc = 0, status;
    while (argv[argc])
        argc++;
    return cs_parse(s, argc, argv, &status) ? -1 : status;
}

#define PARSE(syntax, ...) parse(&syntax, (char *[]){"try", __VA_ARGS__, NULL})

static void accepts_every_form(void **state)
{
    (void)state;
    assert_int_equal(PARSE(syntax, "--images", "7", "out", "--json", "--rate=0.25", "--set", "a=1", "--set=b=2"), -1);
    assert_true(json);
    assert_int_equal(images, 7);
    assert_true(rate == 0.25);
    assert_string_equal(dir, "out");
    assert_null(extra);
    assert_int_equal(sets.count, 2);
    assert_string_equal(sets.items[0], "a=1");
    assert_string_equal(sets.items[1], "b=2");
}

static void keeps_defaults_and_ends_options(void **state)
{
    (void)state;
    assert_int_equal(PARSE(syntax, "--", "--json", "-"), -1);
    assert_false(json);
    assert_int_equal(images, 4);
    assert_string_equal(dir, "--json");
    assert_string_equal(extra, "-");
}

static void refuses_wrong_usage(void **state)
{
    (void)state;
    assert_int_equal(PARSE(syntax, "out", "--imges", "3"), 2);
    assert_int_equal(PARSE(syntax, "out", "-x"), 2);
    assert_int_equal(PARSE(syntax, "out", "--images"), 2);
    assert_int_equal(PARSE(syntax, "out", "--images", "0"), 2);
    assert_int_equal(PARSE(syntax, "out", "--images", "101"), 2);
    assert_int_equal(PARSE(syntax, "out", "--images", "3x"), 2);
    assert_int_equal(PARSE(syntax, "out", "--images="), 2);
    assert_int_equal(PARSE(syntax, "out", "--images", "99999999999999999999"), 2);
    assert_int_equal(PARSE(syntax, "out", "--rate", "nan"), 2);
    assert_int_equal(PARSE(syntax, "out", "--rate", "1.5"), 2);
    assert_int_equal(PARSE(syntax, "out", "--json=yes"), 2);
    assert_int_equal(PARSE(syntax, "a", "b", "c"), 2);
    assert_int_equal(parse(&syntax, (char *[]){"try", NULL}), 2);
    assert_int_equal(parse(&syntax_many, (char *[]){"many", NULL}), 2);
    assert_int_equal(images, 4);
}

static void takes_many_arguments(void **state)
{
    (void)state;
    assert_int_equal(PARSE(syntax_many, "a", "b", "c"), -1);
    assert_int_equal(files.count, 3);
    assert_string_equal(files.items[2], "c");
}

static void shows_help(void **state)
{
    (void)state;
    assert_int_equal(PARSE(syntax, "--help"), 0);
    assert_int_equal(PARSE(syntax_many, "-h"), 0);
}

static void finds_the_nearest_name(void **state)
{
    (void)state;
    static const char *const names[] = {"learning_rate", "weight_decay", "steps", "seed"};
    assert_string_equal(cs_nearest("lerning_rate", names, 4, sizeof *names), "learning_rate");
    assert_string_equal(cs_nearest("setps", names, 4, sizeof *names), "steps");
    assert_null(cs_nearest("completely", names, 4, sizeof *names));
    assert_null(cs_nearest("", names, 4, sizeof *names));
    assert_int_equal(cs_edit_distance("kitten", "sitting"), 3);
    assert_int_equal(cs_edit_distance("ab", "ba"), 1);
    assert_int_equal(cs_edit_distance("", "abc"), 3);
}

static int seen;

static int run_good(int argc, char **argv)
{
    seen = argc;
    return argc == 2 && !strcmp(argv[1], "--help") ? 0 : 5;
}

static void runs_commands(void **state)
{
    (void)state;
    static const cs_command list[] = {{"good", "a command", run_good}};
    assert_int_equal(cs_run_command("", list, 1, 3, (char *[]){"csmoe", "good", "x", NULL}), 5);
    assert_int_equal(seen, 2);
    assert_int_equal(cs_run_command("", list, 1, 3, (char *[]){"csmoe", "help", "good", NULL}), 0);
    assert_int_equal(cs_run_command("", list, 1, 2, (char *[]){"csmoe", "--help", NULL}), 0);
    assert_int_equal(cs_run_command("", list, 1, 2, (char *[]){"csmoe", "goood", NULL}), 2);
    assert_int_equal(cs_run_command("", list, 1, 1, (char *[]){"csmoe", NULL}), 2);
    assert_int_equal(cs_main(2, (char *[]){"csmoe", "--version", NULL}), 0);
}

static void sets_the_threads_of_a_cpu_driver(void **state)
{
    (void)state;
    unsetenv("LP_NUM_THREADS");
    assert_true(cs_set_driver_threads());
    assert_non_null(getenv("LP_NUM_THREADS"));
    assert_true(atoi(getenv("LP_NUM_THREADS")) >= 3);
    setenv("LP_NUM_THREADS", "0", 1);
    assert_true(cs_set_driver_threads());
    assert_string_equal(getenv("LP_NUM_THREADS"), "0");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(accepts_every_form, reset, reset),
        cmocka_unit_test_setup_teardown(keeps_defaults_and_ends_options, reset, reset),
        cmocka_unit_test_setup_teardown(refuses_wrong_usage, reset, reset),
        cmocka_unit_test_setup_teardown(takes_many_arguments, reset, reset),
        cmocka_unit_test_setup_teardown(shows_help, reset, reset),
        cmocka_unit_test(finds_the_nearest_name),
        cmocka_unit_test(runs_commands),
        cmocka_unit_test(sets_the_threads_of_a_cpu_driver),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
