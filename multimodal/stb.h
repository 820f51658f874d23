/* The memory that stb_image may take while it decodes one picture: a budget per thread, set before each decoding. */
#ifndef MULTIMODAL_STB_H
#define MULTIMODAL_STB_H

#include <stddef.h>

#define STBI_ONLY_PNG
#define STBI_ONLY_JPEG
#define STBI_NO_STDIO
#define STBI_NO_HDR
#define STBI_NO_LINEAR
#define STBI_WRITE_NO_STDIO

#if defined(__GNUC__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#endif
#include <stb/stb_image.h>
#include <stb/stb_image_write.h>
#if defined(__GNUC__)
#pragma GCC diagnostic pop
#endif

/* Bytes that this thread's next decoding may hold at once. */
void mm_stb_budget(size_t bytes);
/* Releases what stb_image returned. */
void mm_stb_free(void *p);

#endif
