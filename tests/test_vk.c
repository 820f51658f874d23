/* The Vulkan runtime on whatever device is chosen ($CSMOE_DEVICE). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/error.h"
#include "vk/vk.h"

#define check(condition) \
    do { \
        if (!(condition)) \
            fail_msg("%s: %s", #condition, cs_error()); \
    } while (0)

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
    bad.groups[1] = 0; /* nothing to do is fine */
    check(vk_run(device, &bad));
    assert_int_equal(vk_counters_get(device).dispatches, 0);
    vk_free(device, &x);
    vk_close(&device);
}

static void test_no_messages(void **state)
{
    (void)state;
    assert_int_equal(vk_validation_messages(), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_list),        cmocka_unit_test(test_selectors),
        cmocka_unit_test(test_alloc),       cmocka_unit_test(test_out_of_memory),
        cmocka_unit_test(test_round_trip),  cmocka_unit_test(test_chain),
        cmocka_unit_test(test_independent), cmocka_unit_test(test_texel),
        cmocka_unit_test(test_tickets),     cmocka_unit_test(test_bad_dispatch),
        cmocka_unit_test(test_no_messages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
