/* The configuration reader: values, overrides, every kind of fault with its line, writing and reading back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/config.h"
#include "base/error.h"
#include "base/file.h"
#include "tests/folder_fixture.h"

typedef struct top {
    int64_t seed;
    int32_t steps;
    uint32_t mask;
    char *data, *tokenizer;
} top;

typedef struct moe {
    int32_t experts;
    int affinity;
    float rate;
} moe;

typedef struct optimizer {
    double learning_rate;
    bool decay;
    float mean[3];
} optimizer;

enum { SOFTPLUS, L2NORM };
static const char *const affinities[] = {"softplus", "l2norm", NULL};

static const cs_field top_fields[] = {
    {"seed", CS_INT, CS_MEMBER(top, seed), 0, 9007199254740992.0, "1", "random seed"},
    {"steps", CS_INT, CS_MEMBER(top, steps), 1, 1e9, NULL, "optimizer steps"},
    {"mask", CS_INT, CS_MEMBER(top, mask), 0, 4294967295.0, "4000000000", "bits"},
    {"data", CS_STRING, CS_MEMBER(top, data), .fallback = NULL, .doc = "training file"},
    {"tokenizer", CS_STRING, CS_MEMBER(top, tokenizer), .fallback = "null", .doc = "tokenizer file"},
};
static const cs_field moe_fields[] = {
    {"experts", CS_INT, CS_MEMBER(moe, experts), 0, 256, "4", "number of experts"},
    {"affinity", CS_ENUM, CS_MEMBER(moe, affinity), .fallback = "\"l2norm\"", .doc = "affinity", .choices = affinities},
    {"rate", CS_FLOAT, CS_MEMBER(moe, rate), 0, 1, "0.07", "competition rate"},
};
static const cs_field optimizer_fields[] = {
    {"learning_rate", CS_FLOAT, CS_MEMBER(optimizer, learning_rate), 0, 10, "1e-3", "peak rate"},
    {"decay", CS_BOOL, CS_MEMBER(optimizer, decay), .fallback = "true", .doc = "decays"},
    {"mean", CS_FLOATS, CS_MEMBER(optimizer, mean), .fallback = "[0.5, 0.25, 0.1]", .doc = "means"},
};

/* A configuration with targets of its own. */
typedef struct fixture {
    top top;
    moe moe;
    optimizer optimizer;
    cs_section sections[3];
    cs_config config;
} fixture;

static char *path;

static void init(fixture *f)
{
    memset(f, 0, sizeof *f);
    f->sections[0] = (cs_section){"", "Outermost keys.", top_fields, 5, &f->top};
    f->sections[1] = (cs_section){"vision.moe", "The mixture.", moe_fields, 3, &f->moe};
    f->sections[2] = (cs_section){"optimizer", NULL, optimizer_fields, 3, &f->optimizer};
    f->config = (cs_config){f->sections, 3};
}

static int setup(void **state)
{
    if (make_folder(state) != 0)
        return -1;
    path = in_folder("t.json");
    return 0;
}

static bool read_text(fixture *f, const char *text, const char *set)
{
    const char *const sets[] = {set};
    init(f);
    assert_true(cs_write_file(path, text, strlen(text)));
    return cs_config_read(&f->config, path, sets, set != NULL);
}

static const char good[] = "{\n"
                           "  \"steps\": 200, \"data\": \"a \\\"b\\\".json\",\n"
                           "  \"vision\": {\"moe\": {\"experts\": 8, \"affinity\": \"softplus\"}},\n"
                           "  \"optimizer\": {\n"
                           "    \"learning_rate\": 3e-4,\n"
                           "    \"decay\": false, \"mean\": [1, 2.5, 3]\n"
                           "  }\n"
                           "}\n";

static void reads_values_and_defaults(void **state)
{
    (void)state;
    fixture f;
    assert_true(read_text(&f, good, NULL));
    assert_int_equal(f.top.steps, 200);
    assert_int_equal(f.top.seed, 1);
    assert_int_equal(f.top.mask, 4000000000u);
    assert_string_equal(f.top.data, "a \"b\".json");
    assert_null(f.top.tokenizer);
    assert_int_equal(f.moe.experts, 8);
    assert_int_equal(f.moe.affinity, SOFTPLUS);
    assert_true(f.moe.rate == 0.07f);
    assert_true(f.optimizer.learning_rate == 3e-4);
    assert_false(f.optimizer.decay);
    assert_true(f.optimizer.mean[1] == 2.5f);
    cs_config_release(&f.config);
    assert_null(f.top.data);
}

static void overrides(void **state)
{
    (void)state;
    fixture f;
    static const char *const sets[] = {"steps=1e3",        "data=other file.json",        "vision.moe.affinity=l2norm",
                                       "tokenizer=\"12\"", "optimizer={\"decay\": true}", "optimizer.mean=[1,1,1]"};
    init(&f);
    assert_true(cs_config_read(&f.config, NULL, sets, 6));
    assert_int_equal(f.top.steps, 1000);
    assert_string_equal(f.top.data, "other file.json");
    assert_string_equal(f.top.tokenizer, "12");
    assert_int_equal(f.moe.affinity, L2NORM);
    assert_true(f.optimizer.decay && f.optimizer.mean[2] == 1.0f);
    cs_config_release(&f.config);
}

/* Each fault with the message it must give, after the file's name where it starts with ':'. */
static void names_every_fault(void **state)
{
    (void)state;
    static const struct {
        const char *text, *set, *message;
    } cases[] = {
        {"{\n\"steps\": 1,\n", NULL, ":3:0: not valid JSON"},
        {"{\n\"steps\": 1,\n \"data\" 3}", NULL, ":3:9: not valid JSON: ':' expected near '3'"},
        {"{\"steps\": 1, \"steps\": 2}", NULL, "duplicate object key"},
        {"[1]", NULL, ":1: 'configuration' must be an object"},
        {"{\"steps\": 1,\n\"optimizer\": {\n\"lerning_rate\": 1}}", NULL,
         ":3: unknown key 'optimizer.lerning_rate'; did you mean 'learning_rate'?"},
        {"{\"steps\": 1,\n\"visio\": {}}", NULL, ":2: unknown key 'visio'; did you mean 'vision'?"},
        {"{\"vision\": {\n\n\"mow\": {}}}", NULL, ":3: unknown key 'vision.mow'; did you mean 'moe'?"},
        {"{\"steps\": 1, \"zzzzzzzz\": 2}", NULL, ":1: unknown key 'zzzzzzzz'"},
        {"{\"tokenizer\": [\"steps\"],\n \"steps\": 1}", NULL, ":1: 'tokenizer' must be a string, not a list"},
        {"{\"data\": \"steps\\\"\",\n \"steps\": \"x\"}", NULL, ":2: 'steps' must be a whole number, not a string"},
        {"{\"steps\": 1.5}", NULL, ":1: 'steps' must be a whole number, not a fraction"},
        {"{\"steps\": 0}", NULL, ":1: 'steps' is 0, but must be from 1 to 1000000000"},
        {"{\"steps\": 1e30}", NULL, "must be from 1 to"},
        {"{\"data\": null}", NULL, "'data' must be a string, not null"},
        {"{\"optimizer\": 3}", NULL, "'optimizer' must be an object"},
        {"{\"optimizer\": {\"decay\": 1}}", NULL, "'optimizer.decay' must be true or false, not a number"},
        {"{\"optimizer\": {\"mean\": [1, 2]}}", NULL, "'optimizer.mean' must be a list of 3 numbers"},
        {"{\"optimizer\": {\"mean\": [1, 2, true]}}", NULL, "'optimizer.mean' must be a number, not true"},
        {"{\"optimizer\": {\"mean\": [1, 2, 1e39]}}", NULL, "too large for a 32-bit float"},
        {"{\"optimizer\": {\"learning_rate\": 11}}", NULL, "'optimizer.learning_rate' is 11, but must be from 0 to 10"},
        {"{\"vision\": {\"moe\": {\"affinity\": \"l2nrm\"}}}", NULL, "did you mean 'l2norm'?"},
        {"{\"vision\": {\"moe\": {\"affinity\": \"cosine\"}}}", NULL, "must be one of softplus, l2norm"},
        {"{\"steps\": 1}", NULL, ": the key 'data' is missing (training file)"},
        {"{\"data\": \"x\"}", "steps=-1", "--set steps=-1: 'steps' is -1, but must be from 1"},
        {"{\"data\": \"x\"}", "optimizer.decai=1",
         "--set optimizer.decai=1: unknown key 'optimizer.decai'; did you mean 'decay'?"},
        {"{\"data\": \"x\"}", "optimzer.decay=true", "unknown section 'optimzer'; did you mean 'optimizer'?"},
        {"{\"data\": \"x\"}", "steps", "--set steps: must have the form key=value"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        fixture f;
        char expected[256];
        snprintf(expected, sizeof expected, "%s%s", cases[i].message[0] == ':' ? path : "", cases[i].message);
        assert_false(read_text(&f, cases[i].text, cases[i].set));
        if (!strstr(cs_error(), expected))
            fail_msg("case %zu: \"%s\" has no \"%s\"", i, cs_error(), expected);
        cs_config_release(&f.config);
    }
    fixture f;
    init(&f);
    assert_false(cs_config_read(&f.config, "/nonexistent.json", NULL, 0));
    assert_non_null(strstr(cs_error(), "/nonexistent.json: cannot open"));
    cs_config_release(&f.config);
}

static void writes_and_compares(void **state)
{
    (void)state;
    fixture a, b;
    assert_true(read_text(&a, good, "optimizer.mean=[0.1, 1e-9, 3]"));
    cs_writer *w = cs_writer_open(path);
    cs_config_write(&a.config, cs_writer_stream(w));
    assert_true(cs_writer_commit(w));
    init(&b);
    assert_true(cs_config_read(&b.config, path, NULL, 0));
    assert_true(cs_config_same(&a.config, &b.config));
    size_t size;
    char *text = cs_read_file(path, 10000, &size);
    assert_string_equal(text, "{\n"
                              "  \"seed\": 1,\n"
                              "  \"steps\": 200,\n"
                              "  \"mask\": 4000000000,\n"
                              "  \"data\": \"a \\\"b\\\".json\",\n"
                              "  \"tokenizer\": null,\n"
                              "  \"vision\": {\n"
                              "    \"moe\": {\n"
                              "      \"experts\": 8,\n"
                              "      \"affinity\": \"softplus\",\n"
                              "      \"rate\": 0.07\n"
                              "    }\n"
                              "  },\n"
                              "  \"optimizer\": {\n"
                              "    \"learning_rate\": 0.0003,\n"
                              "    \"decay\": false,\n"
                              "    \"mean\": [0.1, 1e-09, 3]\n"
                              "  }\n"
                              "}\n");
    free(text);
    b.moe.experts = 9;
    assert_false(cs_config_same(&a.config, &b.config));
    assert_string_equal(cs_error(), "vision.moe.experts is 8, not 9");
    cs_config_release(&a.config);
    cs_config_release(&b.config);
}

static void describes(void **state)
{
    (void)state;
    fixture f;
    init(&f);
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    cs_config_describe(&f.config, out);
    fclose(out);
    assert_non_null(strstr(text, "| `steps` | integer, 1 to 1000000000 | required | optimizer steps |\n"));
    assert_non_null(strstr(text, "\n## vision.moe\n\nThe mixture.\n\n| key |"));
    assert_non_null(strstr(text, "| `affinity` | `\"softplus\"`, `\"l2norm\"` | `\"l2norm\"` | affinity |\n"));
    assert_non_null(strstr(text, "| `mean` | 3 numbers | `[0.5, 0.25, 0.1]` | means |\n"));
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_values_and_defaults), cmocka_unit_test(overrides), cmocka_unit_test(names_every_fault),
        cmocka_unit_test(writes_and_compares),       cmocka_unit_test(describes),
    };
    return cmocka_run_group_tests(tests, setup, remove_folder);
}
