/* The Vulkan runtime on whatever device is chosen ($CSMOE_DEVICE). */
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "tests/check.h"
#include "tests/folder_fixture.h"
#include "vk/internal.h"

struct axpy_push {
    uint32_t count;
    float a, b, c;
};

static vk_device *open_with(vk_params params)
{
    params.quiet = true;
    if (!params.cache_folder)
        params.cache_folder = "";
    vk_device *device = vk_open(&params);
    check(device);
    return device;
}

static vk_device *open_plain(void)
{
    return open_with((vk_params){0});
}

static vk_range take(vk_device *device, uint64_t bytes)
{
    vk_range range = vk_alloc(device, bytes, VK_MEMORY_DEVICE, "a test");
    check(range.block);
    return range;
}

static vk_dispatch axpy(const struct axpy_push *push, vk_range x, vk_range y)
{
    return (vk_dispatch){
        .kernel = "axpy", .spec = {64}, .specs = 1, .binds = 2, .push = push, .push_bytes = sizeof *push,
        .bind = {{x, VK_READ}, {y, VK_READ | VK_WRITE}}, .groups = {(push->count + 63) / 64, 1, 1},
        .flops = 3.0 * push->count, .bytes = 12.0 * push->count,
    };
}

/* y = a x + b y + c */
static void run_axpy(vk_device *device, vk_range x, vk_range y, struct axpy_push push)
{
    vk_dispatch dispatch = axpy(&push, x, y);
    check(vk_run(device, &dispatch));
}

static void test_list(void **state)
{
    (void)state;
    vk_caps *devices;
    size_t count, chosen;
    check(vk_list(&devices, &count, &chosen));
    assert_true(count > 0 && chosen < count);
    assert_true(devices[chosen].name[0] && devices[chosen].subgroup_size && devices[chosen].memory_bytes);
    free(devices);
}

static void test_selectors(void **state)
{
    (void)state;
    vk_caps *devices;
    size_t count, chosen;
    char uuid[33] = "", text[256];
    check(vk_list(&devices, &count, &chosen));
    for (int i = 0; i < 16; i++)
        snprintf(uuid + 2 * i, 3, "%02X", devices[0].uuid[i]);
    for (int i = 0; i < 3; i++) {
        vk_device *device = open_with((vk_params){.selector = (const char *[]){"0", uuid, "auto"}[i]});
        vk_close(&device);
        assert_null(device);
    }
    assert_null(vk_open(&(vk_params){.selector = "99", .quiet = true}));
    assert_non_null(strstr(cs_error(), "'99' does not exist"));
    assert_non_null(strstr(cs_error(), devices[0].name));
    assert_null(vk_open(&(vk_params){.selector = "no such card", .quiet = true}));
    snprintf(text, sizeof text, "'no such card' matches none; there are: 0: %.64s", devices[0].name);
    assert_non_null(strstr(cs_error(), text));
    free(devices);
}

static void test_alloc(void **state)
{
    (void)state;
    vk_device *device = open_plain();
    vk_range range[64];
    assert_int_equal(vk_memory_get(device).used, 0);
    for (int i = 0; i < 64; i++) {
        range[i] = take(device, 1000);
        assert_int_equal(range[i].size, 1000);
        assert_int_equal(range[i].offset % 256, 0);
        for (int j = 0; j < i; j++)
            assert_true(range[i].block != range[j].block || range[i].offset >= range[j].offset + 1024 ||
                        range[j].offset >= range[i].offset + 1024);
    }
    assert_int_equal(vk_memory_get(device).used, 64 * 1024);
    uint64_t reserved = vk_memory_get(device).reserved;
    /* Freed neighbours become one hole again, in whatever order they come back. */
    for (int i = 0; i < 64; i++)
        vk_free(device, &range[i * 37 % 64]);
    assert_null(range[0].block);
    vk_memory_stats stats = vk_memory_get(device);
    assert_int_equal(stats.used, 0);
    assert_int_equal(stats.peak, 64 * 1024);
    vk_range whole = take(device, reserved);
    assert_int_equal(vk_memory_get(device).reserved, reserved);
    vk_free(device, &whole);
    vk_memory_reset_peak(device);
    assert_int_equal(vk_memory_get(device).peak, 0);
    vk_close(&device);
}

static void test_out_of_memory(void **state)
{
    (void)state;
    vk_device *device = open_with((vk_params){.memory_limit = 8 << 20});
    vk_range most = take(device, 6 << 20), more = vk_alloc(device, 3 << 20, VK_MEMORY_DEVICE, "the model");
    assert_null(more.block);
    assert_string_equal(cs_error(), "out of device memory for the model: 3.0 MiB wanted, 2.0 MiB available of 8.0 MiB");
    /* The failure leaves a device that works. */
    vk_free(device, &most);
    more = take(device, 8 << 20);
    vk_free(device, &more);
    vk_close(&device);
}

static void test_round_trip(void **state)
{
    (void)state;
    static const uint64_t sizes[] = {1, 3, 4, 255, 257, 65537, (5 << 20) + 12, (20 << 20) + 4};
    vk_device *device = open_plain();
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        uint64_t bytes = sizes[i];
        uint8_t *data = malloc(bytes), *back = malloc(bytes);
        for (uint64_t j = 0; j < bytes; j++)
            data[j] = (uint8_t)(j * 2654435761u >> 13);
        vk_range range = take(device, bytes);
        check(vk_upload(device, range, data, bytes));
        if (bytes % 4 == 0) {
            vk_range copy = take(device, bytes), word = {copy.block, copy.offset, 4};
            check(vk_copy(device, copy, range));
            check(vk_fill(device, word, 0x01020304));
            memcpy(data, &(uint32_t){0x01020304}, 4);
            vk_free(device, &range);
            range = copy;
        }
        check(vk_read(device, range, back, bytes));
        assert_memory_equal(data, back, bytes);
        vk_free(device, &range);
        free(data);
        free(back);
    }
    vk_close(&device);
}

static void test_chain(void **state)
{
    (void)state;
    enum { N = 1000, STEPS = 100 };
    vk_device *device = open_plain();
    vk_range x = take(device, N * sizeof(float)), y = take(device, N * sizeof(float));
    float host[N];
    for (int i = 0; i < N; i++)
        host[i] = (float)i;
    check(vk_upload(device, x, host, sizeof host));
    check(vk_fill(device, y, 0));
    vk_counters before = vk_counters_get(device);
    for (int i = 0; i < STEPS; i++) /* alternately y += x, x += 0 * y + 1 */
        run_axpy(device, i % 2 ? y : x, i % 2 ? x : y, (struct axpy_push){N, i % 2 ? 0 : 1, 1, i % 2 ? 1 : 0});
    vk_counters after = vk_counters_get(device);
    assert_int_equal(after.dispatches - before.dispatches, STEPS);
    assert_int_equal(after.barriers - before.barriers, STEPS);
    assert_int_equal(after.host_waits, before.host_waits);
    check(vk_read(device, y, host, sizeof host));
    for (int i = 0; i < N; i++) /* sum over 50 steps of i + step */
        assert_float_equal(host[i], 50.0f * (float)i + 49 * 50 / 2, 0);
    vk_free(device, &x);
    vk_free(device, &y);
    vk_close(&device);
}

static void test_independent(void **state)
{
    (void)state;
    vk_device *device = open_plain();
    enum { N = 256, PARTS = 8 };
    vk_range x = take(device, N * 4), y = take(device, PARTS * N * 4);
    check(vk_fill(device, x, 0));
    check(vk_fill(device, y, 0));
    uint64_t before = vk_counters_get(device).barriers;
    for (int i = 0; i < PARTS; i++) /* one shared input, separate parts of one output */
        run_axpy(device, x, (vk_range){y.block, y.offset + (uint64_t)i * N * 4, N * 4}, (struct axpy_push){N, 1, 1, 1});
    assert_int_equal(vk_counters_get(device).barriers - before, 1);
    run_axpy(device, x, y, (struct axpy_push){PARTS * N, 0, 1, 0});
    assert_int_equal(vk_counters_get(device).barriers - before, 2);
    /* Write after read, across a submit. */
    check(vk_submit(device));
    check(vk_fill(device, x, 1));
    assert_int_equal(vk_counters_get(device).barriers - before, 3);
    vk_free(device, &x);
    vk_free(device, &y);
    vk_close(&device);
}

static void test_texel(void **state)
{
    (void)state;
    enum { N = 333 };
    vk_device *device = open_plain();
    uint32_t a[4 * N], b[4 * N], push = N;
    for (uint32_t i = 0; i < 4 * N; i++)
        b[i] = ~(a[i] = i * 2654435761u);
    vk_range x = take(device, sizeof a), y = take(device, sizeof b);
    check(vk_upload(device, x, a, sizeof a));
    check(vk_upload(device, y, b, sizeof b));
    vk_dispatch dispatch = {
        .kernel = "xor_texel", .spec = {32, 0xdeadbeef}, .specs = 2, .binds = 2, .push = &push, .push_bytes = 4,
        .bind = {{x, VK_READ | VK_TEXEL}, {y, VK_READ | VK_WRITE}}, .groups = {(N + 31) / 32, 1, 1},
    };
    dispatch.subgroup = vk_device_caps(device)->subgroup_size <= 32 ? vk_device_caps(device)->subgroup_size : 0;
    check(vk_run(device, &dispatch));
    dispatch.bind[0].range = (vk_range){0}; /* none: a dispatch that reads nothing of it */
    dispatch.push = &(uint32_t){0};
    check(vk_run(device, &dispatch));
    check(vk_read(device, y, b, sizeof b));
    for (uint32_t i = 0; i < 4 * N; i++)
        assert_int_equal(b[i], ~0u ^ 0xdeadbeef);
    dispatch.bind[0] = (vk_bind){x, VK_WRITE | VK_TEXEL};
    assert_false(vk_run(device, &dispatch));
    assert_non_null(strstr(cs_error(), "kernel xor_texel: binding 0 is a texel buffer"));
    vk_free(device, &x);
    vk_free(device, &y);
    vk_close(&device);
}

static void test_tickets(void **state)
{
    (void)state;
    vk_device *device = open_plain();
    vk_range x = take(device, 64);
    uint64_t tickets[70];
    for (uint32_t i = 0; i < 70; i++) {
        check(vk_fill(device, x, i));
        check(tickets[i] = vk_read_later(device, x));
    }
    assert_null(vk_read_ready(device, tickets[69])); /* not even submitted */
    check(vk_wait(device, vk_submit(device)));
    assert_null(vk_read_ready(device, tickets[5])); /* overwritten */
    for (uint32_t i = 6; i < 70; i++) {
        const uint32_t *value = vk_read_ready(device, tickets[i]);
        assert_non_null(value);
        assert_int_equal(value[0], i);
        assert_int_equal(value[15], i);
    }
    vk_free(device, &x);
    vk_close(&device);
}

static void test_bad_dispatch(void **state)
{
    (void)state;
    vk_device *device = open_plain();
    const vk_caps *caps = vk_device_caps(device);
    vk_range x = take(device, 1024);
    struct axpy_push push = {1};
    vk_dispatch good = axpy(&push, x, x), bad = good;
    bad.kernel = "axpi";
    assert_false(vk_run(device, &bad));
    assert_string_equal(cs_error(), "kernel 'axpi' is not in this build");
    bad = good;
    bad.push_bytes = 132;
    assert_false(vk_run(device, &bad));
    assert_non_null(strstr(cs_error(), "kernel axpy: 132 bytes of push constants"));
    bad = good;
    bad.bind[0].range.size = 1u << 30;
    assert_false(vk_run(device, &bad));
    assert_non_null(strstr(cs_error(), "kernel axpy: binding 0"));
    if (caps->max_groups[0] < UINT32_MAX) {
        bad = good;
        bad.groups[0] = caps->max_groups[0] + 1;
        assert_false(vk_run(device, &bad));
        assert_non_null(strstr(cs_error(), "workgroups in dimension 0"));
    }
    bad = good;
    bad.subgroup = 3;
    assert_false(vk_run(device, &bad));
    assert_non_null(strstr(cs_error(), "kernel axpy: subgroup size 3 is not one"));
    assert_false(vk_copy(device, x, x));
    assert_non_null(strstr(cs_error(), "overlap"));
    bad = good;
    bad.groups[1] = 0; /* nothing to do is fine */
    check(vk_run(device, &bad));
    assert_int_equal(vk_counters_get(device).dispatches, 0);
    vk_free(device, &x);
    vk_close(&device);
}

static void test_splitting(void **state)
{
    (void)state;
    vk_device *device = open_plain();
    vk_range x = take(device, 256), y = take(device, 256);
    struct axpy_push push = {64, 0, 0, 1};
    vk_dispatch big = axpy(&push, x, y), small = big;
    big.flops = 200e9; /* more than a whole submit's allowance on any device */
    for (int i = 0; i < 4; i++)
        check(vk_run(device, &big));
    assert_int_equal(vk_counters_get(device).submits, 3);
    for (int i = 0; i < 100; i++)
        check(vk_run(device, &small));
    assert_int_equal(vk_counters_get(device).submits, 4);
    uint64_t value = vk_next_value(device);
    assert_false(vk_done(device, value));
    assert_int_equal(vk_submit(device), value);
    assert_int_equal(vk_submit(device), value); /* nothing recorded: the last one */
    check(vk_wait(device, value));
    assert_true(vk_done(device, value));
    assert_false(vk_wait(device, value + 1));
    vk_close(&device);
}

static void test_dry(void **state)
{
    (void)state;
    const uint64_t huge = UINT64_C(1) << 40;
    vk_device *device = open_plain();
    vk_range real = take(device, 4096);
    check(vk_fill(device, real, 7));
    vk_memory_stats before = vk_memory_get(device);
    vk_counters counted = vk_counters_get(device);
    check(vk_dry(device, true));
    vk_range a = take(device, huge), b = take(device, 1 << 20);
    struct axpy_push push = {64};
    vk_dispatch dispatch = axpy(&push, b, b);
    uint32_t word = 1;
    check(vk_run(device, &dispatch));
    check(vk_copy(device, b, (vk_range){a.block, a.offset, b.size}));
    check(vk_upload(device, real, &word, 4));
    check(vk_read(device, b, &word, 4));
    assert_int_equal(word, 0);
    const uint32_t *later = vk_read_ready(device, vk_read_later(device, real));
    assert_int_equal(*later, 0);
    vk_free(device, &a);
    check(vk_dry(device, false));
    vk_memory_stats after = vk_memory_get(device);
    vk_counters now = vk_counters_get(device);
    assert_int_equal(after.reserved, before.reserved);
    assert_int_equal(after.used, before.used + (1 << 20));
    assert_int_equal(after.peak, before.used + (1 << 20) + huge);
    assert_memory_equal(&now, &counted, sizeof now);
    assert_false(vk_run(device, &dispatch));
    assert_non_null(strstr(cs_error(), "dry device"));
    check(vk_read(device, real, &word, 4));
    assert_int_equal(word, 7);
    vk_free(device, &b);
    vk_close(&device);
}

static void test_profile(void **state)
{
    (void)state;
    vk_device *device = open_with((vk_params){.profile = true});
    enum { N = 1 << 12, CALLS = 1500 }; /* more than one command buffer has timestamps for */
    if (!vk_device_caps(device)->timestamps) {
        vk_close(&device);
        skip();
    }
    vk_range x = take(device, N * 4), y = take(device, N * 4);
    struct axpy_push push = {N, 0, 0, 1};
    vk_dispatch dispatch = axpy(&push, x, y);
    double ns;
    uint64_t calls;
    check(vk_fill(device, x, 0));
    check(vk_fill(device, y, 0));
    check(vk_run(device, &dispatch)); /* the first run of a kernel compiles it on some drivers */
    vk_profile_reset(device);
    dispatch.label = "axpy.test";
    for (int i = 0; i < CALLS; i++)
        check(vk_run(device, &dispatch));
    check(vk_profile_get(device, "axpy.test", &ns, &calls));
    assert_int_equal(calls, CALLS);
    assert_true(ns > 0 && ns < 60e9);
    assert_int_equal(vk_counters_get(device).host_waits, 0); /* the profile's own waits do not count */

    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    check(vk_profile_print(device, out));
    fclose(out);
    assert_non_null(strstr(text, "axpy.test"));
    assert_non_null(strstr(text, "1500 dispatches"));
    free(text);
    vk_profile_reset(device);
    check(vk_profile_get(device, "axpy.test", &ns, &calls));
    assert_int_equal(calls, 0);
    vk_close(&device);
}

/* Opens with that cache folder, runs a kernel, closes. */
static void use_cache(const char *folder)
{
    vk_device *device = open_with((vk_params){.cache_folder = folder});
    vk_range x = take(device, 256), y = take(device, 256);
    float value = 0;
    check(vk_fill(device, x, 0));
    check(vk_fill(device, y, 0));
    run_axpy(device, x, y, (struct axpy_push){64, 0, 0, 3});
    check(vk_read(device, y, &value, sizeof value));
    assert_float_equal(value, 3, 0);
    vk_close(&device);
}

static void test_pipeline_cache(void **state)
{
    (void)state;
    vk_device *device = open_plain();
    char name[64] = "pipelines-";
    for (size_t i = 0, used = strlen(name); i < 16; i++)
        used += (size_t)snprintf(name + used, sizeof name - used, "%02x",
                                 vk_device_caps(device)->pipeline_cache_uuid[i]);
    vk_close(&device);
    const char *path = in_folder(name), *not_a_folder = in_folder("file");

    use_cache(folder);
    size_t size, again;
    char *good = cs_read_file(path, 1 << 28, &size);
    check(good);
    for (int damage = 0; damage < 4; damage++) {
        char *bad = malloc(size);
        memcpy(bad, good, size);
        bad[damage == 0 ? 24 : size - 1] ^= 1; /* of other kernels; a flipped bit; cut short; empty */
        check(cs_write_file(path, bad, damage < 2 ? size : damage == 2 ? 20 : 0));
        free(bad);
        use_cache(folder);
        char *now = cs_read_file(path, 1 << 28, &again);
        check(now);
        assert_int_equal(again, size);
        assert_memory_equal(now, good, 32); /* replaced by a valid one for the same device and kernels */
        free(now);
    }
    free(good);
    check(cs_write_file(not_a_folder, "x", 1)); /* where the folder should be: no cache, no failure */
    use_cache(not_a_folder);
}

static void test_device_lost(void **state)
{
    (void)state;
    enum { N = 1 << 20 };
    vk_device *device = open_plain();
    vk_range x = take(device, N * 4), y = take(device, N * 4);
    struct axpy_push push = {N, 1, 1, 1};
    vk_dispatch dispatch = axpy(&push, x, y);
    dispatch.label = "the long one";
    dispatch.groups[0] = 1024;
    for (int i = 0; i < 100; i++)
        check(vk_run(device, &dispatch));
    check(vk_submit(device));
    assert_false(vk_check(device, VK_ERROR_DEVICE_LOST, "waiting for the device"));
    assert_non_null(strstr(cs_error(), "was lost while waiting for the device; last kernels in flight: the long one"));
    assert_false(vk_run(device, &dispatch));
    assert_non_null(strstr(cs_error(), "was lost"));
    assert_int_equal(vk_submit(device), 0);
    assert_false(vk_wait(device, 2));
    uint32_t word;
    assert_false(vk_read(device, x, &word, 4));
    assert_false(vk_upload(device, x, &word, 4));
    vk_close(&device);
    assert_null(device);
}

/* The same commands again are the same command buffers again; anything else is not. */
static void check_reuse(vk_params params)
{
    enum { N = 256, COMMANDS = 3 * VK_PART, ROUNDS = 6 };
    vk_device *device = open_with(params);
    vk_range x = take(device, N * 4), y = take(device, N * 4);
    float found[N], expected = 0;
    check(vk_fill(device, x, 0));
    check(vk_fill(device, y, 0));
    run_axpy(device, y, x, (struct axpy_push){N, 0, 0, 1}); /* x = 1 */
    check(vk_submit(device));
    for (int round = 0; round < ROUNDS; round++) {
        vk_counters before = vk_counters_get(device);
        /* The last two rounds differ from the others in one command of the second command buffer. */
        const float odd = round < ROUNDS - 2 ? 1 : 2;
        for (int i = 0; i < COMMANDS; i++) {
            struct axpy_push push = {N, i == VK_PART ? odd : 1, 1, (float)(i / VK_PART)};
            run_axpy(device, x, y, push);
            expected += push.a + push.c;
        }
        check(vk_submit(device));
        vk_counters after = vk_counters_get(device);
        assert_int_equal(after.dispatches - before.dispatches, COMMANDS);
        assert_int_equal(after.encoded - before.encoded + after.reused - before.reused, 3);
        if (params.profile) /* timestamps belong to one run at a time: wait for it */
            check(vk_wait(device, vk_next_value(device) - 1));
        int first_time = round == 0 ? 3 : round == ROUNDS - 2 ? 1 : 0;
        assert_int_equal(after.encoded - before.encoded, first_time);
    }
    check(vk_read(device, y, found, sizeof found));
    for (int i = 0; i < N; i++)
        assert_float_equal(found[i], expected, 0);
    vk_close(&device);
}

static void test_reuse(void **state)
{
    (void)state;
    check_reuse((vk_params){0});
}

static void test_reuse_with_timestamps(void **state)
{
    (void)state;
    check_reuse((vk_params){.profile = true});
}

/* Uploads and reads through the rings move on from step to step; what lies around them is cut and found as before. */
static void test_reuse_around_transfers(void **state)
{
    (void)state;
    enum { N = 256, ROUNDS = 5, PARTS = 3, RINGS = 2 };
    vk_device *device = open_plain();
    vk_range x = take(device, N * 4), y = take(device, N * 4);
    float one[N], expected = 0;
    for (int i = 0; i < N; i++)
        one[i] = 1;
    check(vk_fill(device, y, 0) && vk_submit(device));
    for (int round = 0; round < ROUNDS; round++) {
        vk_counters before = vk_counters_get(device);
        for (int i = 0; i < PARTS; i++) {
            /* Another number of uploads each time. */
            for (int k = 0; i == 1 && k <= round; k++)
                check(vk_upload(device, x, one, sizeof one));
            for (int k = 0; k < VK_PART / 2; k++, expected += 1)
                run_axpy(device, x, y, (struct axpy_push){N, 0, 1, 1});
        }
        uint64_t ticket = vk_read_later(device, y);
        check(ticket && vk_submit(device));
        vk_counters after = vk_counters_get(device);
        /* The parts after the upload are one command buffer; so are the uploads, and the read. */
        assert_int_equal(after.encoded - before.encoded, (round ? 0 : PARTS - 1) + RINGS);
        assert_int_equal(after.reused - before.reused, round ? PARTS - 1 : 0);
        check(vk_wait(device, vk_next_value(device) - 1));
        const float *found = vk_read_ready(device, ticket);
        check(found);
        assert_float_equal(found[N - 1], expected, 0);
    }
    vk_close(&device);
}

/* What a command buffer names may go away and its name be given to something else. */
static void test_reuse_after_release(void **state)
{
    (void)state;
    enum { BYTES = 20 << 20 };
    vk_device *device = open_with((vk_params){.memory_limit = 48 << 20});
    uint64_t encoded = 0;
    for (int round = 0; round < 3; round++) {
        uint32_t found = 0;
        vk_range x = take(device, BYTES);
        check(vk_fill(device, x, 7));
        check(vk_read(device, (vk_range){x.block, x.offset, 4}, &found, 4));
        assert_int_equal(found, 7);
        assert_true(vk_counters_get(device).encoded >= encoded);
        encoded = vk_counters_get(device).encoded;
        vk_free(device, &x);
        x = take(device, 2 * BYTES); /* only by giving the first one's block back */
        vk_free(device, &x);
    }
    vk_close(&device);
}

/* More command buffers than are kept, and more than one submit holds. */
static void test_many_command_buffers(void **state)
{
    (void)state;
    enum { N = 64, LISTS = VK_ENCODED + VK_PARTS + 3 };
    vk_device *device = open_plain();
    vk_range x = take(device, N * 4), y = take(device, N * 4);
    float found;
    check(vk_fill(device, x, 0));
    check(vk_fill(device, y, 0));
    for (int i = 0; i < LISTS * VK_PART; i++)
        run_axpy(device, x, y, (struct axpy_push){N, (float)(i / VK_PART), 1, 1}); /* x is 0 */
    vk_counters counters = vk_counters_get(device);
    assert_true(counters.encoded >= LISTS - 1 && !counters.reused && counters.submits >= LISTS / VK_PARTS);
    check(vk_read(device, y, &found, sizeof found));
    assert_float_equal(found, (LISTS * VK_PART), 0);
    vk_close(&device);
}

/* A submit that is full goes by itself while a list is open: what that list uploads keeps its place in the ring, and
 * its tickets wait for it. */
static void test_full_submit(void **state)
{
    (void)state;
    enum { A_BYTES = 4 << 20, RING_BYTES = 16 << 20, FULL = VK_PART * (VK_PARTS - 1), AROUND = 40 };
    vk_device *device = open_plain();
    vk_range x = take(device, 256), a = take(device, A_BYTES), b = take(device, RING_BYTES);
    unsigned char *bytes = malloc(RING_BYTES);
    assert_non_null(bytes);
    uint64_t submits = vk_counters_get(device).submits;
    for (int i = 0; i < FULL; i++)
        check(vk_fill(device, x, 7));
    check(vk_submit(device));
    assert_int_equal(vk_counters_get(device).submits, submits + 1);
    for (int before = FULL - AROUND; before <= FULL + AROUND; before += AROUND) {
        for (int i = 0; i < before; i++)
            check(vk_fill(device, x, (uint32_t)i));
        memset(bytes, 0x11, A_BYTES);
        check(vk_upload(device, a, bytes, A_BYTES));
        check(vk_fill(device, x, 0xabcd));
        uint64_t ticket = vk_read_later(device, x), value = vk_next_value(device);
        check(ticket);
        for (int i = 0; i < AROUND; i++)
            check(vk_fill(device, x, 7));
        check(vk_wait(device, vk_next_value(device) - 1));
        const uint32_t *early = vk_read_ready(device, ticket);
        assert_true(early ? *early == 0xabcd : vk_next_value(device) <= value);
        memset(bytes, 0x22, RING_BYTES);
        check(vk_upload(device, b, bytes, RING_BYTES)); /* all of the ring */
        check(vk_read(device, a, bytes, A_BYTES));
        for (int i = 0; i < A_BYTES; i++)
            if (bytes[i] != 0x11)
                fail_msg("%d commands before: byte %d was overwritten before it was copied", before, i);
        assert_int_equal(*(const uint32_t *)vk_read_ready(device, ticket), 0xabcd);
    }
    free(bytes);
    vk_close(&device);
}

/* More distinct texel ranges than a block keeps views of. */
static void test_many_views(void **state)
{
    (void)state;
    enum { OFFSETS = 4096 };
    vk_device *device = open_plain();
    vk_range x = take(device, OFFSETS * 256), y = take(device, 256);
    uint32_t push = 1, word;
    check(vk_fill(device, x, 1));
    check(vk_fill(device, y, 0));
    for (uint32_t i = 0; i < 5 * OFFSETS; i++) {
        vk_range part = {x.block, x.offset + i % OFFSETS * 256, 16 * (1 + i / OFFSETS)};
        vk_dispatch dispatch = {
            .kernel = "xor_texel", .spec = {1, i % 2}, .specs = 2, .binds = 2, .push = &push, .push_bytes = 4,
            .bind = {{part, VK_READ | VK_TEXEL}, {y, VK_READ | VK_WRITE}}, .groups = {1, 1, 1},
        };
        check(vk_run(device, &dispatch));
    }
    check(vk_read(device, y, &word, 4));
    assert_int_equal(word, 5 * OFFSETS / 2 % 2); /* x ^ key is 1 on every other turn */
    vk_close(&device);
}

static void test_runtime_kernel(void **state)
{
    (void)state;
#ifndef HAVE_SHADERC
    skip();
#endif
    static const char text[] =
        "#version 460\n#include \"value.glsl\"\nlayout(local_size_x_id = 0, local_size_x = 64) in;\n"
        "layout(set = 0, binding = 0) readonly buffer X { float x[]; };\n"
        "layout(set = 0, binding = 1) buffer Y { float y[]; };\n"
        "void main() { y[gl_GlobalInvocationID.x] = VALUE; }\n";
    static const char value[] = "#define VALUE 42.0\n", broken[] = "#version 460\nvoid main() { nonsense; }\n";
    const char *path = in_folder("axpy.comp");
    check(cs_make_folder(in_folder("include")));
    check(cs_write_file(in_folder("include/value.glsl"), value, strlen(value)));
    setenv("CSMOE_SHADER_DIR", folder, 1);
    for (int turn = 0; turn < 2; turn++) {
        check(cs_write_file(path, turn ? broken : text, strlen(turn ? broken : text)));
        vk_device *device = open_plain();
        vk_range x = take(device, 256), y = take(device, 256);
        struct axpy_push push = {64};
        vk_dispatch dispatch = axpy(&push, x, y);
        float found = 0;
        if (turn) {
            assert_false(vk_run(device, &dispatch));
            assert_non_null(strstr(cs_error(), "axpy.comp:2: error: 'nonsense' : undeclared identifier"));
        } else {
            check(vk_run(device, &dispatch));
            check(vk_read(device, y, &found, sizeof found));
            assert_float_equal(found, 42, 0);
        }
        vk_close(&device);
    }
    unsetenv("CSMOE_SHADER_DIR");
}

static void test_spirv_val(void **state)
{
    (void)state;
    if (system("spirv-val --version >/dev/null 2>&1"))
        skip();
    for (size_t i = 0; i < vk_kernel_source_count; i++) {
        /* A compiler newer than the validator may have built these. */
        if (strstr(vk_kernel_sources[i].name, "coopmat") || strstr(vk_kernel_sources[i].name, "peak_matrix"))
            continue;
        FILE *pipe = popen("spirv-val --target-env vulkan1.2 -", "w");
        assert_non_null(pipe);
        assert_int_equal(fwrite(vk_kernel_sources[i].code, 1, vk_kernel_sources[i].bytes, pipe),
                         vk_kernel_sources[i].bytes);
        if (pclose(pipe))
            fail_msg("spirv-val rejects kernel %s", vk_kernel_sources[i].name);
    }
}

static void test_no_messages(void **state)
{
    (void)state;
    assert_int_equal(vk_validation_messages(), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_list),
        cmocka_unit_test(test_selectors),
        cmocka_unit_test(test_alloc),
        cmocka_unit_test(test_out_of_memory),
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_chain),
        cmocka_unit_test(test_independent),
        cmocka_unit_test(test_texel),
        cmocka_unit_test(test_tickets),
        cmocka_unit_test(test_bad_dispatch),
        cmocka_unit_test(test_splitting),
        cmocka_unit_test(test_dry),
        cmocka_unit_test(test_profile),
        cmocka_unit_test_setup_teardown(test_pipeline_cache, make_folder, remove_folder),
        cmocka_unit_test(test_device_lost),
        cmocka_unit_test(test_many_views),
        cmocka_unit_test(test_reuse),
        cmocka_unit_test(test_reuse_with_timestamps),
        cmocka_unit_test(test_reuse_around_transfers),
        cmocka_unit_test(test_reuse_after_release),
        cmocka_unit_test(test_many_command_buffers),
        cmocka_unit_test(test_full_submit),
        cmocka_unit_test_setup_teardown(test_runtime_kernel, make_folder, remove_folder),
        cmocka_unit_test(test_spirv_val),
        cmocka_unit_test(test_no_messages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
