/* base/: errors, memory, files (also when they fail), random numbers against published vectors. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "base/random.h"
#include "base/trace.h"
#include "tests/folder_fixture.h"

static void errors_nest(void **state)
{
    (void)state;
    assert_false(cs_fail("%d wrong", 3));
    assert_string_equal(cs_error(), "3 wrong");
    assert_false(cs_fail_in("file %s", "x"));
    assert_string_equal(cs_error(), "file x: 3 wrong");
    cs_fail("again: %s", cs_error());
    assert_string_equal(cs_error(), "again: file x: 3 wrong");
    const cs_kept_error kept = cs_keep_error();
    cs_fail("cannot clean up either");
    assert_false(cs_restore_error(&kept));
    assert_string_equal(cs_error(), "again: file x: 3 wrong");
}

static void memory_grows_and_refuses(void **state)
{
    (void)state;
    int *list = NULL;
    size_t capacity = 0;
    for (int i = 0; i < 100; i++) {
        assert_true(cs_grow(&list, &capacity, (size_t)i + 1, sizeof *list, "a list"));
        list[i] = i;
    }
    assert_int_equal(list[63], 63);
    assert_false(cs_grow(&list, &capacity, SIZE_MAX / 2, sizeof *list, "a list"));
    assert_non_null(strstr(cs_error(), "out of memory for a list"));
    assert_int_equal(list[99], 99);
    free(list);
    assert_null(cs_alloc(SIZE_MAX / 2, 16, "far too much"));
}

static void writer_replaces(void **state)
{
    (void)state;
    char *path = cs_join(folder, "a");
    assert_true(cs_write_file(path, "old", 3));
    cs_writer *w = cs_writer_open(path);
    assert_non_null(w);
    assert_true(cs_writer_put(w, "newer", 5));
    size_t size;
    char *text = cs_read_file(path, 100, &size); /* still the old one: nothing is overwritten before the commit */
    assert_string_equal(text, "old");
    free(text);
    assert_true(cs_writer_commit(w));
    text = cs_read_file(path, 100, &size);
    assert_int_equal(size, 5);
    assert_string_equal(text, "newer");
    free(text);

    w = cs_writer_open(path);
    assert_true(cs_writer_put(w, "x", 1));
    cs_writer_abort(w);
    text = cs_read_file(path, 100, &size);
    assert_string_equal(text, "newer");
    free(text);
    assert_null(cs_read_file(path, 4, &size));
    assert_non_null(strstr(cs_error(), "5 bytes, but at most 4"));
    free(path);
}

static void writer_fails_cleanly(void **state)
{
    (void)state;
    char *path = cs_join(folder, "missing/file");
    assert_null(cs_writer_open(path));
    assert_non_null(strstr(cs_error(), "missing/file: cannot write"));
    free(path);

    /* The rename fails: the final name is a folder with something in it. */
    path = cs_join(folder, "b");
    char *inner = cs_join(path, "c");
    assert_true(cs_make_folder(inner));
    assert_false(cs_write_file(path, "x", 1));
    assert_non_null(strstr(cs_error(), "cannot write"));
    assert_true(cs_is_folder(inner));
    char temporary[128];
    snprintf(temporary, sizeof temporary, "%s.tmp-%ld", path, (long)getpid());
    assert_int_equal(access(temporary, F_OK), -1);
    free(inner);
    free(path);
}

static void folders(void **state)
{
    (void)state;
    size_t size;
    assert_null(cs_read_file(folder, 100, &size));
    assert_non_null(strstr(cs_error(), "is a folder"));
    assert_null(cs_read_file("/nonexistent/x", 100, &size));
    assert_non_null(strstr(cs_error(), "/nonexistent/x: cannot open"));
    char *deep = cs_join(folder, "p/q/r");
    assert_true(cs_make_folder(deep));
    assert_true(cs_make_folder(deep));
    char *file = cs_join(deep, "f");
    assert_true(cs_write_file(file, "", 0));
    assert_true(cs_is_file(file));
    assert_false(cs_make_folder(file));
    char *top = cs_join(folder, "p");
    assert_true(cs_remove_folder(top));
    assert_false(cs_is_folder(top));
    assert_true(cs_remove_folder(top));
    char *absolute = cs_join("x", "/y");
    assert_string_equal(absolute, "/y");
    free(absolute);
    free(top);
    free(file);
    free(deep);
}

static void paths(void **state)
{
    (void)state;
    const struct {
        const char *path, *parent, *base_name;
    } rows[] = {
        {"a/b/c", "a/b", "c"}, {"/a", "/", "a"}, {"a", ".", "a"}, {"a/", "a", ""}, {"../a", "..", "a"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char *parent = cs_parent(rows[i].path);
        assert_string_equal(parent, rows[i].parent);
        assert_string_equal(cs_base_name(rows[i].path), rows[i].base_name);
        free(parent);
    }
}

/* The three Philox4x32-10 vectors of Random123's kat_vectors whose counters cs_random can express have the fourth
 * counter word zero; the first (all zero) is one of them. The others here were computed from the same published
 * algorithm by an independent implementation, `reference` below, which is itself checked against all three vectors. */
static void reference(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4])
{
    uint32_t x[4], k[2] = {key[0], key[1]};
    memcpy(x, counter, sizeof x);
    for (int i = 0; i < 10; i++) {
        uint64_t a = 0xD2511F53ull * x[0], b = 0xCD9E8D57ull * x[2];
        uint32_t next[4] = {(uint32_t)(b >> 32) ^ x[1] ^ k[0], (uint32_t)b, (uint32_t)(a >> 32) ^ x[3] ^ k[1],
                            (uint32_t)a};
        memcpy(x, next, sizeof x);
        k[0] += 0x9E3779B9u;
        k[1] += 0xBB67AE85u;
    }
    memcpy(out, x, sizeof x);
}

static void philox_vectors(void **state)
{
    (void)state;
    static const struct {
        uint32_t counter[4], key[2], out[4];
    } known[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < 3; i++) {
        uint32_t out[4];
        reference(known[i].counter, known[i].key, out);
        assert_memory_equal(out, known[i].out, sizeof out);
    }
    cs_random zero = {0};
    for (int i = 0; i < 4; i++)
        assert_int_equal(cs_random_u32(&zero), known[0].out[i]);

    cs_random r = {.seed = 0x299f31d0a4093822ull, .stream = 0x13198a2e, .index = 4 * 0x05a308d3243f6a88ull};
    uint32_t out[4], counter[4] = {0x243f6a88, 0x05a308d3, 0x13198a2e, 0};
    reference(counter, known[2].key, out);
    for (int i = 0; i < 4; i++)
        assert_int_equal(cs_random_u32(&r), out[i]);
}

static void random_is_uniform(void **state)
{
    (void)state;
    enum { N = 20000, BINS = 7 };
    cs_random r = {.seed = 1, .stream = cs_random_stream("test")};
    uint32_t bins[BINS] = {0}, items[50];
    double sum = 0, squares = 0, mean = 0;
    for (int i = 0; i < N; i++) {
        bins[cs_random_below(&r, BINS)]++;
        float u = cs_random_float(&r);
        assert_true(u >= 0 && u < 1);
        mean += u / N;
        double z = cs_random_normal(&r);
        sum += z / N;
        squares += z * z / N;
    }
    for (int i = 0; i < BINS; i++)
        assert_in_range(bins[i], N / BINS - 250, N / BINS + 250); /* five standard deviations */
    assert_true(mean > 0.49 && mean < 0.51 && sum > -0.04 && sum < 0.04 && squares > 0.95 && squares < 1.05);

    bool present[50] = {0};
    for (uint32_t i = 0; i < 50; i++)
        items[i] = i;
    cs_random_shuffle(&r, items, 50);
    bool moved = false;
    for (uint32_t i = 0; i < 50; i++) {
        present[items[i]] = true;
        moved = moved || items[i] != i;
    }
    for (int i = 0; i < 50; i++)
        assert_true(present[i]);
    assert_true(moved);
}

static bool has_file(const char *in, const char *name)
{
    char *path = cs_join(in, name);
    bool found = cs_is_file(path);
    free(path);
    return found;
}

static void put_file(const char *in, const char *name)
{
    char *path = cs_join(in, name);
    assert_true(cs_write_file(path, "x", 1));
    free(path);
}

static void folders_appear_whole(void **state)
{
    (void)state;
    char *target = cs_join(folder, "made"), *slashes = cs_join(folder, "made//"), *file = cs_join(folder, "a file");
    cs_folder *f = cs_folder_begin(slashes, false);
    assert_non_null(f);
    put_file(cs_folder_path(f), "first");
    assert_false(cs_is_folder(target));
    assert_true(cs_folder_commit(f));
    assert_true(has_file(target, "first"));
    /* What stands there is noticed before the work, unless it may go. */
    assert_null(cs_folder_begin(target, false));
    assert_non_null(strstr(cs_error(), "made: exists already and is not empty"));
    put_file(folder, "a file");
    assert_null(cs_folder_begin(file, false));
    assert_non_null(strstr(cs_error(), "a file: exists already"));
    f = cs_folder_begin(target, true);
    assert_non_null(f);
    put_file(cs_folder_path(f), "second");
    assert_true(has_file(target, "first"));
    assert_true(cs_folder_commit(f));
    assert_true(has_file(target, "second") && !has_file(target, "first"));
    /* Given up: the error stays, what was there stays, nothing else is left behind. */
    f = cs_folder_begin(target, true);
    assert_non_null(f);
    char *temporary = cs_strdup(cs_folder_path(f));
    put_file(temporary, "third");
    cs_fail("the reason");
    cs_folder_abort(f);
    assert_string_equal(cs_error(), "the reason");
    assert_true(!cs_is_folder(temporary) && has_file(target, "second"));
    assert_null(cs_folder_begin("/proc/none/here", false));
    free(temporary);
    free(target);
    free(slashes);
    free(file);
}

static void a_link_to_a_folder_stays(void **state)
{
    (void)state;
    char *target = cs_join(folder, "elsewhere"), *link = cs_join(folder, "link"), *slash = cs_join(folder, "link/");
    assert_true(cs_make_folder(target));
    assert_int_equal(symlink("elsewhere", link), 0);
    for (int replace = 0; replace < 2; replace++) {
        cs_folder *f = cs_folder_begin(slash, replace);
        assert_non_null(f);
        put_file(cs_folder_path(f), replace ? "second" : "first");
        assert_true(cs_folder_commit(f));
    }
    struct stat st;
    assert_true(lstat(link, &st) == 0 && S_ISLNK(st.st_mode));
    assert_true(has_file(target, "second") && !has_file(target, "first"));
    assert_false(cs_remove_folder(link));
    assert_true(has_file(target, "second"));
    assert_true(cs_remove_folder(target));
    assert_null(cs_folder_begin(link, true));
    assert_non_null(strstr(cs_error(), "link: cannot follow the link"));
    free(target);
    free(link);
    free(slash);
}

static void trace_collects_while_it_is_on(void **state)
{
    (void)state;
    char path[128];
    size_t size;
    assert_int_equal(cs_trace_now(), 0);
    cs_trace_end(CS_TRACE_HOST, "before", cs_trace_now());
    cs_trace_start();
    uint64_t outer = cs_trace_now(), inner = cs_trace_now();
    assert_true(outer && inner >= outer);
    cs_trace_end(CS_TRACE_HOST, "inner \"quoted\"", inner);
    cs_trace_add(&(cs_trace_span){CS_TRACE_DEVICE, "kernel", "dispatch", outer + 500, outer + 2000, {{"GFLOP", 2}}});
    snprintf(path, sizeof path, "%s/trace.json", folder);
    assert_true(cs_trace_write(path));
    cs_trace_end(CS_TRACE_HOST, "after", outer);
    char *text = cs_read_file(path, 1 << 20, &size);
    assert_non_null(text);
    assert_non_null(strstr(text, "inner \\\"quoted\\\""));
    assert_non_null(strstr(text, "\"name\":\"kernel\",\"cat\":\"dispatch\",\"pid\":1,\"tid\":3"));
    assert_non_null(strstr(text, "\"dur\":1.5,\"args\":{\"GFLOP\":2.0}"));
    assert_null(strstr(text, "before"));
    free(text);
    cs_trace_start();
    snprintf(path, sizeof path, "%s/absent/trace.json", folder);
    assert_false(cs_trace_write(path));
    assert_non_null(strstr(cs_error(), "absent/trace.json: cannot write"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(errors_nest),
        cmocka_unit_test(memory_grows_and_refuses),
        cmocka_unit_test_setup_teardown(writer_replaces, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(writer_fails_cleanly, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(folders, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(folders_appear_whole, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(a_link_to_a_folder_stays, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(trace_collects_while_it_is_on, make_folder, remove_folder),
        cmocka_unit_test(paths),
        cmocka_unit_test(philox_vectors),
        cmocka_unit_test(random_is_uniform),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
