/* 16-bit floats, on the host and on the device: every value there is, and what lies between them. */
#include "tests/nn_fixture.h"

#include "base/half.h"
#include "nn/dtype.h"
#include "nn/ops.h"

enum { PATTERNS = 1 << 16, COLS = 256 };

static const struct half_type {
    enum nn_dtype type;
    /* The smallest normal number; larger patterns than infinity's, but for the sign, are NaN. */
    uint16_t normal, infinity;
    uint16_t (*bits)(float);
    float (*value)(uint16_t);
} types[] = {{NN_F16, 0x0400, 0x7c00, cs_f16_bits, cs_f16_value},
             {NN_BF16, 0x0080, 0x7f80, cs_bf16_bits, cs_bf16_value}};
enum { TYPES = sizeof types / sizeof *types };

static bool is_nan(const struct half_type *t, uint32_t bits)
{
    return (bits & 0x7fff) > t->infinity;
}

static void test_known_values(void **state)
{
    (void)state;
    static const struct {
        float value;
        uint16_t f16, bf16;
    } known[] = {
        {0, 0, 0},
        {-0.0f, 0x8000, 0x8000},
        {1, 0x3c00, 0x3f80},
        {-2, 0xc000, 0xc000},
        {0.1f, 0x2e66, 0x3dcd},
        {65504, 0x7bff, 0x4780},
        {65520, 0x7c00, 0x4780},
        {INFINITY, 0x7c00, 0x7f80},
        {0x1p-24f, 0x0001, 0x3380},
        {0x1p-14f, 0x0400, 0x3880},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        assert_int_equal(cs_f16_bits(known[i].value), known[i].f16);
        assert_int_equal(cs_bf16_bits(known[i].value), known[i].bf16);
    }
    assert_true(cs_f16_value(0x3555) == 0.333251953125f && cs_bf16_value(0x3eab) == 0.333984375f);
}

/* Between neighbours the nearer one is taken, and halfway the even one: that is all of rounding. */
static void test_host_rounds_to_nearest_even(void **state)
{
    (void)state;
    for (int k = 0; k < TYPES; k++) {
        const struct half_type *t = &types[k];
        for (uint32_t h = 0; h < t->infinity; h++) {
            float low = t->value((uint16_t)h), step = t->value((uint16_t)(h + 1)) - low;
            if (h + 1 == t->infinity) /* the next value, were there one, decides what overflows */
                step = low - t->value((uint16_t)(h - 1));
            float middle = low + step / 2;
            assert_true(t->bits(low) == h && t->bits(-low) == (h | 0x8000));
            assert_true(t->bits(nextafterf(middle, -1)) == h && t->bits(nextafterf(middle, INFINITY)) == h + 1);
            assert_true(t->bits(middle) == h + (h & 1));
        }
        assert_true(is_nan(t, t->bits(NAN)) && isnan(t->value((uint16_t)(t->infinity + 1))));
    }
}

static void test_device_reads_every_value(void **state)
{
    (void)state;
    static uint16_t host[PATTERNS];
    static float got[PATTERNS];
    for (uint32_t h = 0; h < PATTERNS; h++)
        host[h] = (uint16_t)h;
    for (int k = 0; k < TYPES; k++) {
        nn_tape *tape = nn_tape_new(device);
        nn_tensor *x = nn_input(tape, types[k].type, 2, (int64_t[]){PATTERNS / COLS, COLS}, host);
        nn_tensor *y = nn_keep(nn_cast(tape, x, NN_F32));
        check(y && nn_tape_run(tape, NULL, 0) && nn_read(tape, y, got));
        for (uint32_t h = 0; h < PATTERNS; h++) {
            float wanted = types[k].value((uint16_t)h);
            bool same = is_nan(&types[k], h) ? isnan(got[h]) : !memcmp(&got[h], &wanted, sizeof wanted);
            /* Vulkan lets a device make subnormal numbers 0; CPU drivers do not. */
            bool flushed = !got[h] && (h & 0x7fff) < types[k].normal;
            if (!same && !(flushed && vk_device_caps(device)->type != VK_TYPE_CPU))
                fail_msg("%s %04x is %g, not %g", nn_dtype_name(types[k].type), h, got[h], wanted);
        }
        nn_tape_free(&tape);
    }
}

/* Of every value: itself, the middle between it and the next, and the floats beside that. */
static void make_floats(const struct half_type *t, float *x)
{
    for (uint32_t h = 0; h < PATTERNS; h++) {
        float low = t->value((uint16_t)h), high = t->value((uint16_t)(h + 1));
        float middle = isfinite(high) ? low / 2 + high / 2 : h & 0x8000 ? -65520 : 65520;
        const float points[] = {low, middle, nextafterf(middle, -INFINITY), nextafterf(middle, INFINITY)};
        memcpy(x + 4 * h, points, sizeof points);
    }
}

static void test_device_rounds_as_the_host(void **state)
{
    (void)state;
    enum { COUNT = 4 * PATTERNS };
    static float x[COUNT];
    static uint16_t got[COUNT];
    for (int k = 0; k < TYPES; k++) {
        const struct half_type *t = &types[k];
        make_floats(t, x);
        nn_tape *tape = nn_tape_new(device);
        nn_tensor *in = nn_input(tape, NN_F32, 2, (int64_t[]){COUNT / COLS, COLS}, x);
        nn_tensor *y = nn_keep(nn_cast(tape, in, t->type));
        check(y && nn_tape_run(tape, NULL, 0) && nn_read(tape, y, got));
        for (int i = 0; i < COUNT; i++)
            if (isnan(x[i]) ? !is_nan(t, got[i]) : got[i] != t->bits(x[i]))
                fail_msg("%a is %04x in %s, not %04x", (double)x[i], got[i], nn_dtype_name(t->type), t->bits(x[i]));
        nn_tape_free(&tape);
    }
}

/* Rows that are not whole texels cannot be 16 bits wide. */
static void test_rows_must_be_multiples_of_8(void **state)
{
    (void)state;
    static const uint16_t values[36];
    nn_tape *tape = nn_tape_new(device);
    assert_null(nn_input(tape, NN_BF16, 2, (int64_t[]){3, 12}, values));
    assert_error("rows of 12 values in 16 bits");
    nn_tape_free(&tape);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_values),
        cmocka_unit_test(test_host_rounds_to_nearest_even),
        cmocka_unit_test(test_device_reads_every_value),
        cmocka_unit_test(test_device_rounds_as_the_host),
        cmocka_unit_test(test_rows_must_be_multiples_of_8),
    };
    return cmocka_run_group_tests(tests, open_device, close_device);
}
