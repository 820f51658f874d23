/* Resizing and patches. The filter follows PIL's ImagingResample (8 bits per channel) to the bit, since that is what
 * the published vision towers were trained behind. */
#include "multimodal/image.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"

/* A picture seen inside a larger frame of one colour, which is never stored. */
struct framed {
    const mm_image *image;
    int width, height; /* of the frame */
    int left, top;     /* of the picture in it */
    uint8_t colour[3];
};

/* The part of a resized frame that is wanted: the frame's size after resizing, and a window in that. */
struct window {
    int full_width, full_height;
    int left, top, width, height;
};

/* Weights along one axis: output i is the sum over k < count of weights[i * taps + k] * input[first + k]. */
struct axis {
    int taps;
    struct span {
        int first, count;
    } * spans;
    int32_t *weights; /* fixed point, WEIGHT_BITS fraction bits */
};

enum { WEIGHT_BITS = 22 };

static double bicubic(double x)
{
    const double a = -0.5;
    x = fabs(x);
    if (x < 1)
        return ((a + 2) * x - (a + 3)) * x * x + 1;
    if (x < 2)
        return (((x - 5) * x + 8) * x - 4) * a;
    return 0;
}

static void axis_free(struct axis *axis)
{
    free(axis->spans);
    free(axis->weights);
}

/* Weights of outputs start..start + n - 1 of an axis resized from `in` to `out` samples. */
static bool axis_make(struct axis *axis, int in, int out, int start, int n)
{
    double scale = (double)in / out, filter_scale = scale < 1 ? 1 : scale, support = 2 * filter_scale;
    axis->taps = (int)ceil(support) * 2 + 1;
    axis->spans = cs_alloc((size_t)n, sizeof *axis->spans, "resize spans");
    axis->weights = cs_alloc((size_t)n * axis->taps, sizeof *axis->weights, "resize weights");
    double *real = cs_alloc((size_t)axis->taps, sizeof *real, "resize weights");
    if (!axis->spans || !axis->weights || !real) {
        axis_free(axis);
        free(real);
        return false;
    }
    for (int i = 0; i < n; i++) {
        double centre = (start + i + 0.5) * scale, total = 0;
        int first = (int)(centre - support + 0.5), last = (int)(centre + support + 0.5);
        first = first < 0 ? 0 : first;
        last = last > in ? in : last;
        for (int k = 0; k < last - first; k++)
            total += real[k] = bicubic((k + first - centre + 0.5) / filter_scale);
        for (int k = 0; k < last - first; k++) {
            double w = (total != 0 ? real[k] / total : real[k]) * (1 << WEIGHT_BITS);
            axis->weights[(size_t)i * axis->taps + k] = (int32_t)(w < 0 ? w - 0.5 : w + 0.5);
        }
        axis->spans[i] = (struct span){first, last - first};
    }
    free(real);
    return true;
}

/* One output sample of each channel; inputs are `stride` bytes apart. */
static void filter(const struct axis *axis, int i, const uint8_t *in, size_t stride, uint8_t *out)
{
    const int32_t *w = axis->weights + (size_t)i * axis->taps;
    int32_t sum[3] = {1 << (WEIGHT_BITS - 1), 1 << (WEIGHT_BITS - 1), 1 << (WEIGHT_BITS - 1)};
    const uint8_t *p = in + axis->spans[i].first * stride;
    for (int k = 0; k < axis->spans[i].count; k++, p += stride)
        for (int c = 0; c < 3; c++)
            sum[c] += p[c] * w[k];
    for (int c = 0; c < 3; c++) {
        int v = sum[c] < 0 ? 0 : sum[c] >> WEIGHT_BITS;
        out[c] = (uint8_t)(v > 255 ? 255 : v);
    }
}

static void fill(uint8_t *row, int width, const uint8_t colour[3])
{
    for (int x = 0; x < width; x++)
        memcpy(row + 3 * (size_t)x, colour, 3);
}

/* First pass: every row of the frame, of the window's width, into `out`. Rows beside the picture are of one colour and
 * stay so, because the weights of an output sum to one. */
static bool resize_rows(const struct framed *in, const struct window *w, const struct axis *axis, uint8_t *out)
{
    const mm_image *image = in->image;
    uint8_t *row = cs_alloc((size_t)in->width, 3, "a row of pixels");
    if (!row)
        return false;
    fill(row, in->width, in->colour);
    for (int y = 0; y < in->height; y++) {
        uint8_t *to = out + (size_t)y * w->width * 3;
        if (y < in->top || y >= in->top + image->height) {
            fill(to, w->width, in->colour);
            continue;
        }
        const uint8_t *from = image->rgb + (size_t)(y - in->top) * image->width * 3;
        memcpy(row + 3 * (size_t)in->left, from, (size_t)image->width * 3);
        for (int x = 0; x < w->width; x++)
            filter(axis, x, row, 3, to + 3 * (size_t)x);
    }
    free(row);
    return true;
}

static bool resample(const struct framed *in, const struct window *w, mm_image *out)
{
    struct axis across, down;
    if (!mm_image_new(w->width, w->height, out))
        return false;
    if (!axis_make(&across, in->width, w->full_width, w->left, w->width)) {
        mm_image_free(out);
        return false;
    }
    uint8_t *rows = cs_alloc((size_t)in->height * w->width, 3, "resized rows");
    bool ok =
        rows && resize_rows(in, w, &across, rows) && axis_make(&down, in->height, w->full_height, w->top, w->height);
    if (ok) {
        size_t stride = (size_t)w->width * 3;
        for (int y = 0; y < w->height; y++)
            for (int x = 0; x < w->width; x++)
                filter(&down, y, rows + 3 * (size_t)x, stride, out->rgb + y * stride + 3 * (size_t)x);
        axis_free(&down);
    } else {
        mm_image_free(out);
    }
    axis_free(&across);
    free(rows);
    return ok;
}

bool mm_image_resize(const mm_image *image, int width, int height, mm_image *out)
{
    struct framed whole = {image, image->width, image->height, 0, 0, {0}};
    struct window all = {width, height, 0, 0, width, height};
    *out = (mm_image){0};
    return resample(&whole, &all, out);
}

static bool fit_pad(const mm_image *image, const mm_preprocess *pre, mm_image *out)
{
    int side = image->width > image->height ? image->width : image->height;
    struct framed frame = {image, side, side, (side - image->width) / 2, (side - image->height) / 2, {0}};
    for (int c = 0; c < 3; c++)
        frame.colour[c] = (uint8_t)fminf(fmaxf(pre->mean[c] * 255, 0), 255);
    struct window all = {pre->size, pre->size, 0, 0, pre->size, pre->size};
    return resample(&frame, &all, out);
}

static bool fit_crop(const mm_image *image, const mm_preprocess *pre, mm_image *out)
{
    int size = pre->size, width = image->width, height = image->height;
    struct framed whole = {image, width, height, 0, 0, {0}};
    struct window centre = {size, size, 0, 0, size, size};
    /* MM_IMAGE_MAX_SIDE squared fits an int, and so does what the crop works with: the longer side is never stored. */
    if (width > height)
        centre.full_width = (int)((int64_t)size * width / height);
    else
        centre.full_height = (int)((int64_t)size * height / width);
    centre.left = (centre.full_width - size) / 2;
    centre.top = (centre.full_height - size) / 2;
    return resample(&whole, &centre, out);
}

/* Every way to fit leaves such a picture as it is. */
static bool is_fitted(const mm_image *image, const mm_preprocess *pre)
{
    return image->width == pre->size && image->height == pre->size;
}

bool mm_image_fit(const mm_image *image, const mm_preprocess *pre, mm_image *out)
{
    *out = (mm_image){0};
    if (pre->size < 1 || pre->size > MM_IMAGE_MAX_SIDE)
        return cs_fail("fitting a picture: a square of %d pixels a side is not possible", pre->size);
    if (is_fitted(image, pre)) {
        if (!mm_image_new(pre->size, pre->size, out))
            return false;
        memcpy(out->rgb, image->rgb, 3 * (size_t)pre->size * pre->size);
        return true;
    }
    switch (pre->fit) {
    case MM_FIT_PAD:
        return fit_pad(image, pre, out);
    case MM_FIT_CROP:
        return fit_crop(image, pre, out);
    case MM_FIT_SQUASH:
        return mm_image_resize(image, pre->size, pre->size, out);
    }
    return cs_fail("fitting a picture: no such way to fit it: %d", (int)pre->fit);
}

static int wrap(int v, int n)
{
    v %= n;
    return v < 0 ? v + n : v;
}

bool mm_image_patches(const mm_image *image, const mm_preprocess *pre, const mm_augment *augment, float *out)
{
    if (pre->patch < 1 || pre->size < 1 || pre->size % pre->patch != 0)
        return cs_fail("cutting a picture into patches: %d pixels do not divide into patches of %d", pre->size,
                       pre->patch);
    mm_image own = {0};
    if (!is_fitted(image, pre) && !mm_image_fit(image, pre, &own))
        return false;
    const uint8_t *pixels = own.rgb ? own.rgb : image->rgb;
    float value[3][256];
    for (int c = 0; c < 3; c++)
        for (int v = 0; v < 256; v++)
            value[c][v] = (v / 255.0f - pre->mean[c]) / pre->std[c];
    const mm_augment none = {0}, *a = augment ? augment : &none;
    int n = pre->size, p = pre->patch, grid = n / p, dx = wrap(a->dx, n), dy = wrap(a->dy, n);
    for (int y = 0; y < n; y++) {
        int fy = wrap(y - dy, n), from_y = a->flip_y ? n - 1 - fy : fy;
        for (int x = 0; x < n; x++) {
            int fx = wrap(x - dx, n), from_x = a->flip_x ? n - 1 - fx : fx;
            const uint8_t *rgb = pixels + 3 * ((size_t)from_y * n + from_x);
            float *row = out + (size_t)((y / p) * grid + x / p) * 3 * p * p + (y % p) * p + x % p;
            for (int c = 0; c < 3; c++)
                row[c * p * p] = value[c][rgb[c]];
        }
    }
    mm_image_free(&own);
    return true;
}
