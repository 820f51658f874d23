/* What stb_image does not check: that the file is whole. Used by image.c alone. */
#ifndef MULTIMODAL_IMAGE_CHECK_H
#define MULTIMODAL_IMAGE_CHECK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Walks a PNG's chunks (lengths, checksums, the closing IEND) or a JPEG's segments (lengths, the closing marker) and
 * stores the size its header claims. Fails, naming `name`, for a file that is neither, ends too early, is damaged, or
 * whose JPEG scan is too short for that size (stb_image would fill the rest with grey). */
bool mm_image_check(const uint8_t *data, size_t size, const char *name, uint32_t *width, uint32_t *height);

#endif
