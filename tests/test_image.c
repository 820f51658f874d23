/* Pictures: decoding and its refusals, resizing against PIL 9.4.0, patches. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "multimodal/image.h"
#include "multimodal/stb.h"
#include "tests/folder_fixture.h"

/* The picture that PIL's numbers below were computed from. */
static mm_image pattern(int width, int height)
{
    mm_image image;
    assert_true(mm_image_new(width, height, &image));
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++)
            for (int c = 0; c < 3; c++)
                image.rgb[(y * width + x) * 3 + c] = (uint8_t)((x * 37 + y * 91 + c * 57 + x * y * (c + 3)) * 5);
    return image;
}

static uint32_t fnv(const mm_image *image)
{
    uint32_t h = 2166136261u;
    for (size_t i = 0; i < (size_t)image->width * image->height * 3; i++)
        h = (h ^ image->rgb[i]) * 16777619u;
    return h;
}

/* A file in memory, to be spoilt. */
struct bytes {
    uint8_t data[1 << 16];
    size_t size;
};

static void collect(void *context, void *data, int size)
{
    struct bytes *b = context;
    assert_true(b->size + (size_t)size <= sizeof b->data);
    memcpy(b->data + b->size, data, (size_t)size);
    b->size += (size_t)size;
}

static struct bytes *encode(bool png, int channels, int width, int height, const uint8_t *pixels)
{
    struct bytes *b = cs_alloc(1, sizeof *b, "a test file");
    assert_non_null(b);
    if (png)
        assert_true(stbi_write_png_to_func(collect, b, width, height, channels, pixels, width * channels));
    else
        assert_true(stbi_write_jpg_to_func(collect, b, width, height, channels, pixels, 95));
    return b;
}

static struct bytes *encode_pattern(bool png)
{
    mm_image image = pattern(40, 24);
    struct bytes *b = encode(png, 3, image.width, image.height, image.rgb);
    mm_image_free(&image);
    return b;
}

static void refused(const struct bytes *b, const char *why)
{
    mm_image image;
    assert_false(mm_image_decode(b->data, b->size, "spoilt.png", &image));
    assert_null(image.rgb);
    if (!strstr(cs_error(), why) || strncmp(cs_error(), "spoilt.png: ", 12) != 0)
        fail_msg("\"%s\" expected in \"%s\"", why, cs_error());
}

static uint32_t crc(const uint8_t *p, size_t n)
{
    uint32_t c = 0xffffffff;
    while (n--) {
        c ^= *p++;
        for (int k = 0; k < 8; k++)
            c = c >> 1 ^ (0xedb88320 & -(c & 1));
    }
    return ~c;
}

static void put_u32(uint8_t *p, uint32_t v)
{
    for (int i = 0; i < 4; i++)
        p[i] = (uint8_t)(v >> (24 - 8 * i));
}

/* Gives the PNG header another size, and the checksum that goes with it. */
static void claim_png_size(struct bytes *b, uint32_t width, uint32_t height)
{
    put_u32(b->data + 16, width);
    put_u32(b->data + 20, height);
    put_u32(b->data + 29, crc(b->data + 12, 17));
}

static void claim_jpeg_size(struct bytes *b, int width, int height)
{
    for (size_t i = 2; i + 9 < b->size; i++) {
        if (b->data[i] != 0xff || b->data[i + 1] != 0xc0)
            continue;
        b->data[i + 5] = (uint8_t)(height >> 8);
        b->data[i + 6] = (uint8_t)height;
        b->data[i + 7] = (uint8_t)(width >> 8);
        b->data[i + 8] = (uint8_t)width;
        return;
    }
    fail_msg("no frame header in the JPEG file");
}

static void png_round_trip(void **state)
{
    (void)state;
    mm_image image = pattern(40, 24), back;
    assert_true(mm_image_write_png(&image, in_folder("a.png")));
    assert_true(mm_image_load(in_folder("a.png"), &back));
    assert_int_equal(back.width, 40);
    assert_int_equal(back.height, 24);
    assert_memory_equal(image.rgb, back.rgb, 40 * 24 * 3);
    mm_image_free(&back);
    assert_false(mm_image_write_png(&image, "/nowhere/at/all.png"));
    assert_non_null(strstr(cs_error(), "/nowhere/at/all.png"));
    mm_image_free(&image);
    mm_image_free(&image);
}

static void channels_become_rgb(void **state)
{
    (void)state;
    const uint8_t grey[4] = {0, 80, 160, 255}, rgba[8] = {10, 20, 30, 0, 40, 50, 60, 255};
    mm_image image;
    struct bytes *b = encode(true, 1, 4, 1, grey);
    assert_true(mm_image_decode(b->data, b->size, "grey", &image));
    for (int i = 0; i < 12; i++)
        assert_int_equal(image.rgb[i], grey[i / 3]);
    mm_image_free(&image);
    free(b);
    b = encode(true, 4, 2, 1, rgba);
    assert_true(mm_image_decode(b->data, b->size, "rgba", &image));
    const uint8_t dropped[6] = {10, 20, 30, 40, 50, 60};
    assert_memory_equal(image.rgb, dropped, 6);
    mm_image_free(&image);
    free(b);
}

static void jpeg_is_close(void **state)
{
    (void)state;
    mm_image image, smooth;
    assert_true(mm_image_new(48, 32, &smooth));
    for (int i = 0; i < 48 * 32; i++)
        for (int c = 0; c < 3; c++)
            smooth.rgb[3 * i + c] = (uint8_t)(i % 48 * 3 + i / 48 * 2 + 20 * c);
    struct bytes *b = encode(false, 3, 48, 32, smooth.rgb);
    assert_true(mm_image_decode(b->data, b->size, "photo", &image));
    assert_int_equal(image.width, 48);
    assert_int_equal(image.height, 32);
    for (int i = 0; i < 48 * 32 * 3; i++)
        assert_in_range(image.rgb[i] - smooth.rgb[i] + 12, 0, 24);
    mm_image_free(&image);
    mm_image_free(&smooth);
    free(b);
}

static void refuses_what_is_no_picture(void **state)
{
    (void)state;
    mm_image image;
    assert_false(mm_image_load(in_folder("missing.png"), &image));
    assert_non_null(strstr(cs_error(), "missing.png"));
    assert_false(mm_image_load(folder, &image));
    assert_non_null(strstr(cs_error(), "folder"));
    assert_true(cs_write_file(in_folder("empty.png"), "", 0));
    assert_false(mm_image_load(in_folder("empty.png"), &image));
    assert_non_null(strstr(cs_error(), "empty.png: empty file"));
    const char *text[] = {"<html>not found</html>", "GIF89a\x01\x01", "BM", "P6 1 1 255 abc", "\x89PNX\r\n\x1a\n"};
    for (size_t i = 0; i < sizeof text / sizeof *text; i++) {
        struct bytes b = {.size = strlen(text[i])};
        memcpy(b.data, text[i], b.size);
        refused(&b, "not a PNG or JPEG picture");
    }
}

static void refuses_every_truncation(void **state)
{
    (void)state;
    for (int png = 0; png < 2; png++) {
        struct bytes *b = encode_pattern(png);
        for (size_t whole = b->size; b->size > 1;) {
            b->size = b->size > 64 && whole - b->size > 64 ? b->size - 37 : b->size - 1;
            refused(b, "truncated picture");
        }
        b->size = 0;
        refused(b, "empty");
        free(b);
    }
}

static void refuses_damage(void **state)
{
    (void)state;
    struct bytes *b = encode_pattern(true);
    b->data[60] ^= 1;
    refused(b, "checksum");
    free(b);
    b = encode_pattern(false);
    b->data[3] = 0x20;
    refused(b, "damaged picture");
    free(b);
}

static void refuses_lying_headers(void **state)
{
    (void)state;
    struct bytes *b = encode_pattern(true);
    claim_png_size(b, 400, 240);
    refused(b, "damaged picture");
    claim_png_size(b, 0, 24);
    refused(b, "0x24 pixels");
    claim_png_size(b, 16385, 1);
    refused(b, "oversized picture: 16385x1 pixels");
    claim_png_size(b, 16000, 16000);
    refused(b, "oversized picture");
    claim_png_size(b, 0xffffffff, 0xffffffff);
    refused(b, "oversized picture");
    free(b);
    b = encode_pattern(false);
    claim_jpeg_size(b, 4000, 4000);
    refused(b, "too few");
    claim_jpeg_size(b, 65535, 65535);
    refused(b, "too few");
    claim_jpeg_size(b, 0, 24);
    refused(b, "0x24 pixels");
    free(b);
}

/* Code tables that do not fit their segment, or have more codes than a decoder's tables have room for. */
static void refuses_lying_code_tables(void **state)
{
    (void)state;
    struct bytes *b = encode_pattern(false);
    size_t at = 2;
    while (at + 21 < b->size && (b->data[at] != 0xff || b->data[at + 1] != 0xc4))
        at++;
    assert_true(at + 21 < b->size);
    uint8_t counts[16];
    memcpy(counts, b->data + at + 5, sizeof counts);
    memset(b->data + at + 5, 255, sizeof counts);
    refused(b, "code table");
    memcpy(b->data + at + 5, counts, sizeof counts);
    b->data[at + 5]++;
    refused(b, "damaged picture");
    free(b);
}

static void refuses_a_big_file(void **state)
{
    (void)state;
    mm_image image;
    FILE *f = fopen(in_folder("big.png"), "wb");
    assert_non_null(f);
    assert_int_equal(ftruncate(fileno(f), (off_t)MM_IMAGE_MAX_BYTES + 1), 0);
    fclose(f);
    assert_false(mm_image_load(in_folder("big.png"), &image));
    assert_non_null(strstr(cs_error(), "big.png"));
    assert_non_null(strstr(cs_error(), "bytes"));
}

/* Of stb_image_write, which its header does not declare. */
unsigned char *stbi_zlib_compress(unsigned char *data, int length, int *packed, int quality);

/* A few kilobytes that unpack to megabytes must stop at what its header allows. */
static void a_zip_bomb_stays_small(void **state)
{
    (void)state;
    size_t zeros = (size_t)4 << 20;
    unsigned char *raw = cs_alloc(zeros, 1, "zeros"), *packed;
    int length;
    assert_non_null(raw);
    packed = stbi_zlib_compress(raw, (int)zeros, &length, 8);
    assert_non_null(packed);
    struct bytes *b = encode_pattern(true);
    const size_t at = 33; /* the chunk behind the header */
    put_u32(b->data + at, (uint32_t)length);
    memcpy(b->data + at + 4, "IDAT", 4);
    assert_true(at + 24 + (size_t)length < sizeof b->data);
    memcpy(b->data + at + 8, packed, (size_t)length);
    put_u32(b->data + at + 8 + length, crc(b->data + at + 4, (size_t)length + 4));
    memcpy(b->data + at + 12 + length, "\0\0\0\0IEND\xae\x42\x60\x82", 12);
    b->size = at + 24 + (size_t)length;
    refused(b, "Out of memory");
    free(packed);
    free(raw);
    free(b);
}

static void spoilt_bytes_never_crash(void **state)
{
    (void)state;
    uint32_t seed = 1;
    for (int png = 0; png < 2; png++) {
        struct bytes *whole = encode_pattern(png), *b = cs_alloc(1, sizeof *b, "a test file");
        for (int round = 0; round < 300; round++) {
            *b = *whole;
            for (int k = 0; k < 1 + round % 4; k++) {
                seed = seed * 1664525u + 1013904223u;
                b->data[(seed >> 8) % b->size] = (uint8_t)(seed >> 24);
            }
            mm_image image;
            if (mm_image_decode(b->data, b->size, "spoilt", &image))
                assert_true(image.width > 0 && image.height > 0 && image.rgb);
            else
                assert_null(image.rgb);
            mm_image_free(&image);
        }
        free(whole);
        free(b);
    }
}

static void resizes_as_pil_does(void **state)
{
    (void)state;
    static const uint8_t smaller[36] = {126, 166, 153, 101, 80, 123, 162, 130, 116, 70,  142, 113,
                                        66,  103, 141, 102, 80, 159, 220, 84,  137, 151, 114, 105,
                                        169, 91,  97,  225, 85, 165, 183, 156, 120, 125, 145, 105};
    mm_image image = pattern(9, 7), out;
    assert_true(mm_image_resize(&image, 4, 3, &out));
    assert_memory_equal(out.rgb, smaller, sizeof smaller);
    mm_image_free(&out);
    mm_image_free(&image);
    /* FNV-1a of the bytes that PIL gives. */
    static const struct {
        int from_width, from_height, width, height;
        uint32_t hash;
    } cases[] = {{61, 47, 32, 32, 0x2be0ef57},
                 {61, 47, 61, 20, 0xc66d38a4},
                 {33, 64, 128, 64, 0x85a72b6e},
                 {300, 5, 7, 9, 0x7b91ebdd},
                 {64, 64, 64, 64, 0xa8a492c5}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        image = pattern(cases[i].from_width, cases[i].from_height);
        assert_true(mm_image_resize(&image, cases[i].width, cases[i].height, &out));
        assert_int_equal(out.width, cases[i].width);
        assert_int_equal(out.height, cases[i].height);
        assert_int_equal(fnv(&out), cases[i].hash);
        mm_image_free(&out);
        mm_image_free(&image);
    }
    image = pattern(2, 2);
    assert_false(mm_image_resize(&image, 0, 4, &out));
    assert_false(mm_image_resize(&image, 60000, 60000, &out));
    mm_image_free(&image);
}

static void fits_as_the_published_towers_do(void **state)
{
    (void)state;
    static const struct {
        int width, height;
        enum mm_fit fit;
        uint32_t hash;
    } cases[] = {{61, 47, MM_FIT_CROP, 0x2f1dfc51},   {61, 47, MM_FIT_PAD, 0x4b4c3337},
                 {61, 47, MM_FIT_SQUASH, 0xf9cc33b6}, {20, 91, MM_FIT_CROP, 0xf6e557b6},
                 {20, 91, MM_FIT_PAD, 0x3c15f769},    {20, 91, MM_FIT_SQUASH, 0x0056bc88}};
    mm_preprocess pre = {24, 8, MM_FIT_PAD, {0.48145466f, 0.4578275f, 0.40821073f}, {1, 1, 1}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        mm_image image = pattern(cases[i].width, cases[i].height), out, again;
        pre.fit = cases[i].fit;
        assert_true(mm_image_fit(&image, &pre, &out));
        assert_int_equal(fnv(&out), cases[i].hash);
        assert_true(mm_image_fit(&out, &pre, &again));
        assert_int_equal(fnv(&again), cases[i].hash);
        mm_image_free(&image);
        mm_image_free(&out);
        mm_image_free(&again);
    }
}

static void extreme_shapes_stay_small(void **state)
{
    (void)state;
    mm_image image = pattern(MM_IMAGE_MAX_SIDE, 1), out;
    for (enum mm_fit fit = MM_FIT_PAD; fit <= MM_FIT_SQUASH; fit++) {
        mm_preprocess pre = {16, 8, fit, {0.5f, 0.5f, 0.5f}, {1, 1, 1}};
        assert_true(mm_image_fit(&image, &pre, &out));
        assert_int_equal(out.width, 16);
        mm_image_free(&out);
    }
    mm_image_free(&image);
}

static void patches_are_flattened_convolution_windows(void **state)
{
    (void)state;
    mm_image image = pattern(6, 6);
    mm_preprocess pre = {6, 2, MM_FIT_SQUASH, {0.5f, 0.25f, 0.125f}, {0.5f, 2, 4}};
    float out[9 * 12];
    for (int round = 0; round < 3; round++) {
        mm_augment augment = {round == 1, round == 2, round ? -7 : 0, round == 2 ? 3 : 0};
        assert_true(mm_image_patches(&image, &pre, round ? &augment : NULL, out));
        for (int y = 0; y < 6; y++) {
            for (int x = 0; x < 6; x++) {
                int fx = round == 1 ? 5 - x : x, fy = round == 2 ? 5 - y : y;
                fx = (fx + 35 + (round ? 0 : 1)) % 6;
                fy = (fy + (round == 2 ? 3 : 0)) % 6;
                for (int c = 0; c < 3; c++) {
                    float want = (image.rgb[(y * 6 + x) * 3 + c] / 255.0f - pre.mean[c]) / pre.std[c];
                    float got = out[((fy / 2) * 3 + fx / 2) * 12 + c * 4 + (fy % 2) * 2 + fx % 2];
                    assert_float_equal(got, want, 0);
                }
            }
        }
    }
    pre.patch = 4;
    assert_false(mm_image_patches(&image, &pre, NULL, out));
    assert_non_null(strstr(cs_error(), "6 pixels do not divide into patches of 4"));
    mm_image_free(&image);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(png_round_trip),
        cmocka_unit_test(channels_become_rgb),
        cmocka_unit_test(jpeg_is_close),
        cmocka_unit_test(refuses_what_is_no_picture),
        cmocka_unit_test(refuses_every_truncation),
        cmocka_unit_test(refuses_damage),
        cmocka_unit_test(refuses_lying_headers),
        cmocka_unit_test(refuses_lying_code_tables),
        cmocka_unit_test(refuses_a_big_file),
        cmocka_unit_test(a_zip_bomb_stays_small),
        cmocka_unit_test(spoilt_bytes_never_crash),
        cmocka_unit_test(resizes_as_pil_does),
        cmocka_unit_test(fits_as_the_published_towers_do),
        cmocka_unit_test(extreme_shapes_stay_small),
        cmocka_unit_test(patches_are_flattened_convolution_windows),
    };
    return cmocka_run_group_tests_name("image", tests, make_folder, remove_folder);
}
