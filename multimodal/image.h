/* Pictures: decoded defensively, fitted to a square, cut into the patches that a vision tower reads. */
#ifndef MULTIMODAL_IMAGE_H
#define MULTIMODAL_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Refused beyond these, before anything is decoded: bytes of a file, a side in pixels, pixels altogether. */
#define MM_IMAGE_MAX_BYTES ((size_t)64 << 20)
#define MM_IMAGE_MAX_SIDE 16384
#define MM_IMAGE_MAX_PIXELS ((size_t)50 << 20)

/* 8-bit RGB, rows from the top, no padding between rows. */
typedef struct mm_image {
    int width, height;
    uint8_t *rgb; /* [height, width, 3] */
} mm_image;

/* Decodes a PNG or JPEG file. Greyscale and palettes are expanded to RGB; an alpha channel is dropped, not composited,
 * which is what the data sets of the field are read with (PIL's convert("RGB")). Fails with an error that names the
 * file when it is missing, a folder, empty, truncated, damaged, beyond the limits above, or neither PNG nor JPEG;
 * `*image` is then {0}. The memory that decoding may take is bounded by the size in the header, which is checked first.
 * Thread-safe. Release with mm_image_free(). */
bool mm_image_load(const char *path, mm_image *image);

/* The same for bytes in memory; `name` is what an error calls them. */
bool mm_image_decode(const void *data, size_t size, const char *name, mm_image *image);

/* Zeroed (black) picture of this size. */
bool mm_image_new(int width, int height, mm_image *image);

/* Releases the pixels and zeroes the struct; a zeroed struct is fine. */
void mm_image_free(mm_image *image);

/* The bytes of a PNG file, `*size` of them, to be released with free(); the same picture gives the same bytes. NULL
 * with the error set where memory lacks. */
void *mm_image_encode_png(const mm_image *image, size_t *size);

/* Writes these bytes to a file. */
bool mm_image_write_png(const mm_image *image, const char *path);

/* How a picture becomes a square. */
enum mm_fit {
    MM_FIT_PAD,   /* padded to a square with the mean colour, then resized (LLaVA) */
    MM_FIT_CROP,  /* shortest side resized to the square's, then the centre cut out (CLIP) */
    MM_FIT_SQUASH /* both sides resized, whatever the proportions (SigLIP) */
};

typedef struct mm_preprocess {
    int size;  /* side of the square in pixels */
    int patch; /* side of a patch in pixels; divides `size` */
    enum mm_fit fit;
    float mean[3], std[3]; /* of the channels, values in 0..1 */
} mm_preprocess;

/* Variation for training, applied to the fitted square: flips first, then a cyclic shift by (dx, dy) pixels to the
 * right and down; any integer. */
typedef struct mm_augment {
    bool flip_x, flip_y;
    int dx, dy;
} mm_augment;

/* Antialiased bicubic resize (a = -0.5, support widened when shrinking, two passes in fixed point): bit for bit what
 * PIL's Image.resize(BICUBIC) gives. */
bool mm_image_resize(const mm_image *image, int width, int height, mm_image *out);

/* The fitted square, `pre->size` pixels a side. Fitting a picture that has this size already copies it. */
bool mm_image_fit(const mm_image *image, const mm_preprocess *pre, mm_image *out);

/* Fits the picture and writes its patches to `out`, f32 [(size / patch)^2, 3 * patch * patch]: rows in reading order,
 * inside a row (channel, y, x) as in a flattened convolution weight, values (v / 255 - mean) / std. `augment` may be
 * NULL. */
bool mm_image_patches(const mm_image *image, const mm_preprocess *pre, const mm_augment *augment, float *out);

#endif
