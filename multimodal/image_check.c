#include "multimodal/image_check.h"

#include <string.h>

#include "base/error.h"

static const uint8_t png_signature[8] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};

static uint32_t big_u32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static uint32_t big_u16(const uint8_t *p)
{
    return (uint32_t)p[0] << 8 | p[1];
}

/* CRC-32 of the PNG specification, annex D, four bits at a time. */
static uint32_t crc32(const uint8_t *data, size_t size)
{
    static const uint32_t table[16] = {
        0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4, 0x4db26158, 0x5005713c,
        0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c, 0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c,
    };
    uint32_t crc = 0xffffffff;
    for (size_t i = 0; i < size; i++) {
        crc = table[(crc ^ data[i]) & 15] ^ crc >> 4;
        crc = table[(crc ^ data[i] >> 4) & 15] ^ crc >> 4;
    }
    return ~crc;
}

static bool truncated(const char *name, size_t size)
{
    return cs_fail("%s: truncated picture: the file ends after %zu bytes, before the picture does", name, size);
}

static bool check_png(const uint8_t *data, size_t size, const char *name, uint32_t *width, uint32_t *height)
{
    size_t at = sizeof png_signature;
    for (bool first = true;; first = false) {
        if (size - at < 12 || big_u32(data + at) > size - at - 12)
            return truncated(name, size);
        uint32_t length = big_u32(data + at);
        const uint8_t *type = data + at + 4;
        if (big_u32(type + 4 + length) != crc32(type, (size_t)length + 4))
            return cs_fail("%s: damaged picture: the PNG chunk at byte %zu has a wrong checksum", name, at);
        if (first) {
            if (memcmp(type, "IHDR", 4) != 0 || length != 13)
                return cs_fail("%s: damaged picture: the PNG file does not begin with its header", name);
            *width = big_u32(type + 4);
            *height = big_u32(type + 8);
        }
        if (memcmp(type, "IEND", 4) == 0)
            return true;
        at += 12 + (size_t)length;
    }
}

/* The end of the entropy-coded bytes that begin at `at`: the next marker that is neither a stuffed FF nor a restart. */
static size_t scan_end(const uint8_t *data, size_t size, size_t at)
{
    while (at + 1 < size) {
        const uint8_t *ff = memchr(data + at, 0xff, size - 1 - at);
        if (!ff)
            break;
        at = (size_t)(ff - data);
        if (data[at + 1] != 0 && data[at + 1] != 0xff && (data[at + 1] < 0xd0 || data[at + 1] > 0xd7))
            return at;
        at += data[at + 1] == 0xff ? 1 : 2;
    }
    return size;
}

/* Start-of-frame markers: C0..CF less the tables C4 (Huffman), C8 (reserved), CC (arithmetic). */
static bool is_frame(uint8_t marker)
{
    return marker >= 0xc0 && marker <= 0xcf && marker != 0xc4 && marker != 0xc8 && marker != 0xcc;
}

/* A DHT segment's tables: a class byte, 16 counts of codes by length, the codes' values (JPEG B.2.4.2). stb_image
 * trusts the counts; more than 256 codes would write past its tables. */
static bool huffman_fits(const uint8_t *segment, size_t bytes)
{
    while (bytes > 0) {
        size_t codes = 0;
        if (bytes < 17)
            return false;
        for (int i = 1; i <= 16; i++)
            codes += segment[i];
        if (codes > 256 || codes > bytes - 17)
            return false;
        segment += 17 + codes;
        bytes -= 17 + codes;
    }
    return true;
}

static bool check_jpeg(const uint8_t *data, size_t size, const char *name, uint32_t *width, uint32_t *height)
{
    size_t at = 2, coded = 0;
    for (;;) {
        while (at + 1 < size && data[at] == 0xff && data[at + 1] == 0xff)
            at++;
        if (size - at < 2)
            return truncated(name, size);
        if (data[at] != 0xff)
            return cs_fail("%s: damaged picture: no JPEG marker at byte %zu", name, at);
        uint8_t marker = data[at + 1];
        if (marker == 0xd9)
            break;
        if (size - at < 4 || big_u16(data + at + 2) > size - at - 2)
            return truncated(name, size);
        uint32_t length = big_u16(data + at + 2);
        if (length < 2)
            return cs_fail("%s: damaged picture: the JPEG segment at byte %zu has no length", name, at);
        if (marker == 0xc4 && !huffman_fits(data + at + 4, length - 2))
            return cs_fail("%s: damaged picture: the JPEG code table at byte %zu does not fit its segment", name, at);
        if (is_frame(marker) && length >= 8) {
            *height = big_u16(data + at + 5);
            *width = big_u16(data + at + 7);
        }
        at += 2 + length;
        if (marker == 0xda) {
            size_t end = scan_end(data, size, at);
            coded += end - at;
            at = end;
        }
    }
    /* Every block of 8x8 takes at least one bit. */
    uint64_t blocks = (uint64_t)((*width + 7) / 8) * ((*height + 7) / 8);
    if (blocks > (uint64_t)coded * 8)
        return cs_fail("%s: damaged picture: its header says %ux%u pixels, but %zu bytes of them are too few", name,
                       *width, *height, coded);
    return true;
}

bool mm_image_check(const uint8_t *data, size_t size, const char *name, uint32_t *width, uint32_t *height)
{
    static const uint8_t jpeg_signature[3] = {0xff, 0xd8, 0xff};
    *width = *height = 0;
    if (size == 0)
        return cs_fail("%s: empty file, not a picture", name);
    size_t head = size < sizeof png_signature ? size : sizeof png_signature;
    if (memcmp(data, png_signature, head) == 0)
        return head < sizeof png_signature ? truncated(name, size) : check_png(data, size, name, width, height);
    head = size < sizeof jpeg_signature ? size : sizeof jpeg_signature;
    if (memcmp(data, jpeg_signature, head) == 0)
        return head < sizeof jpeg_signature ? truncated(name, size) : check_jpeg(data, size, name, width, height);
    return cs_fail("%s: not a PNG or JPEG picture", name);
}
