#include "multimodal/image.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "multimodal/image_check.h"
#include "multimodal/stb.h"

/* The header is read before anything is decoded; pixels are counted as decoded by stb_image at its most wasteful: 16
 * bits of 4 channels, twice (PNG), or three planes of coefficients and samples padded to whole blocks of 32 (JPEG). */
static size_t decoding_budget(uint32_t width, uint32_t height, size_t file)
{
    return ((size_t)1 << 20) + 2 * file + (size_t)24 * (width + 64) * (height + 64);
}

static bool check_size(uint32_t width, uint32_t height, const char *name)
{
    if (width == 0 || height == 0)
        return cs_fail("%s: damaged picture: its header says %ux%u pixels", name, width, height);
    if (width > MM_IMAGE_MAX_SIDE || height > MM_IMAGE_MAX_SIDE || (size_t)width * height > MM_IMAGE_MAX_PIXELS)
        return cs_fail("%s: oversized picture: %ux%u pixels, at most %d a side and %zu altogether are accepted", name,
                       width, height, MM_IMAGE_MAX_SIDE, MM_IMAGE_MAX_PIXELS);
    return true;
}

bool mm_image_decode(const void *data, size_t size, const char *name, mm_image *image)
{
    *image = (mm_image){0};
    if (size > MM_IMAGE_MAX_BYTES)
        return cs_fail("%s: oversized picture: %zu bytes, at most %zu are accepted", name, size, MM_IMAGE_MAX_BYTES);
    uint32_t claimed_width, claimed_height;
    if (!mm_image_check(data, size, name, &claimed_width, &claimed_height) ||
        !check_size(claimed_width, claimed_height, name))
        return false;
    int width = 0, height = 0, channels = 0;
    mm_stb_budget(decoding_budget(claimed_width, claimed_height, size));
    if (!stbi_info_from_memory(data, (int)size, &width, &height, &channels))
        return cs_fail("%s: damaged picture: %s", name, stbi_failure_reason());
    if (width != (int)claimed_width || height != (int)claimed_height)
        return cs_fail("%s: damaged picture: contradictory headers", name);
    uint8_t *pixels = stbi_load_from_memory(data, (int)size, &width, &height, &channels, 3);
    if (!pixels)
        return cs_fail("%s: damaged picture: %s", name, stbi_failure_reason());
    bool ok = width == (int)claimed_width && height == (int)claimed_height;
    if (!ok)
        cs_fail("%s: damaged picture: contradictory headers", name);
    ok = ok && mm_image_new(width, height, image);
    if (ok)
        memcpy(image->rgb, pixels, (size_t)width * height * 3);
    mm_stb_free(pixels);
    return ok;
}

bool mm_image_load(const char *path, mm_image *image)
{
    *image = (mm_image){0};
    size_t size;
    char *data = cs_read_file(path, MM_IMAGE_MAX_BYTES, &size);
    bool ok = data && mm_image_decode(data, size, path, image);
    free(data);
    return ok;
}

bool mm_image_new(int width, int height, mm_image *image)
{
    *image = (mm_image){0};
    if (width <= 0 || height <= 0 || (size_t)width > INT_MAX / 3 / (size_t)height)
        return cs_fail("a picture of %dx%d pixels is not possible", width, height);
    image->rgb = cs_alloc((size_t)width * height, 3, "a picture");
    if (!image->rgb)
        return false;
    image->width = width;
    image->height = height;
    return true;
}

void mm_image_free(mm_image *image)
{
    free(image->rgb);
    *image = (mm_image){0};
}

struct png_bytes {
    uint8_t *data;
    size_t size, capacity;
    bool ok;
};

static void png_put(void *context, void *data, int size)
{
    struct png_bytes *png = context;
    png->ok = png->ok && cs_grow(&png->data, &png->capacity, png->size + (size_t)size, 1, "a PNG file");
    if (!png->ok)
        return;
    memcpy(png->data + png->size, data, (size_t)size);
    png->size += (size_t)size;
}

void *mm_image_encode_png(const mm_image *image, size_t *size)
{
    struct png_bytes png = {.ok = true};
    int row = image->width * 3;
    if (!stbi_write_png_to_func(png_put, &png, image->width, image->height, 3, image->rgb, row) && png.ok)
        png.ok = cs_fail("out of memory for compressing a picture");
    if (!png.ok) {
        free(png.data);
        return NULL;
    }
    *size = png.size;
    return png.data;
}

bool mm_image_write_png(const mm_image *image, const char *path)
{
    size_t size;
    void *png = mm_image_encode_png(image, &size);
    bool ok = png ? cs_write_file(path, png, size) : cs_fail_in("%s", path);
    free(png);
    return ok;
}
