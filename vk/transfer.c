/* Copies: device to device, host to device through the staging ring, device to host through the readback ring. */
#include "vk/internal.h"

#include <string.h>

enum { STAGING_BYTES = 16 << 20, STAGING_PIECE = STAGING_BYTES / 4, STAGING_ALIGN = 16, READ_PIECE = 16 << 20 };

static bool check_range(const char *what, const vk_device *device, vk_range range)
{
    if (!range.block)
        return cs_fail("%s: no memory", what);
    if (range.block->dry && !device->dry)
        return cs_fail("%s: the memory was handed out by a dry device", what);
    return range.offset + range.size <= range.block->size || cs_fail("%s: the range ends outside its memory", what);
}

/* Records a copy; a source that nothing on the device writes need not be tracked. */
static bool copy_range(vk_device *device, vk_range dst, vk_range src, bool track_src, struct vk_about about)
{
    struct vk_touch touches[] = {
        {dst.block, dst.offset, dst.offset + dst.size, true},
        {src.block, src.offset, src.offset + src.size, false},
    };
    about.transfer = true;
    about.bytes = 2.0 * (double)dst.size;
    struct vk_command *command = vk_list_add(device, VK_COMMAND_COPY, 0, touches, track_src ? 2 : 1, &about);
    if (!command)
        return false;
    command->copy.from = src.block->buffer;
    command->copy.to = dst.block->buffer;
    command->copy.from_offset = src.offset;
    command->copy.to_offset = dst.offset;
    command->copy.size = dst.size;
    device->stream.to_host |= dst.block->kind == VK_MEMORY_READBACK;
    device->counters.copies++;
    return true;
}

bool vk_copy(vk_device *device, vk_range dst, vk_range src)
{
    if (!check_range("copying to", device, dst) || !check_range("copying from", device, src))
        return false;
    if (dst.size != src.size || dst.size % 4)
        return cs_fail("copying %llu bytes to %llu: sizes must be equal multiples of 4", (unsigned long long)src.size,
                       (unsigned long long)dst.size);
    if (dst.block == src.block && dst.offset < src.offset + src.size && src.offset < dst.offset + dst.size)
        return cs_fail("copying %llu bytes onto themselves: the ranges overlap", (unsigned long long)dst.size);
    if (device->dry || !dst.size)
        return true;
    return copy_range(device, dst, src, src.block->kind == VK_MEMORY_DEVICE, (struct vk_about){.label = "copy"});
}

bool vk_fill(vk_device *device, vk_range dst, uint32_t value)
{
    if (!check_range("filling", device, dst))
        return false;
    if (dst.size % 4 || dst.offset % 4)
        return cs_fail("filling %llu bytes: not a multiple of 4", (unsigned long long)dst.size);
    if (device->dry || !dst.size)
        return true;
    struct vk_touch touch = {dst.block, dst.offset, dst.offset + dst.size, true};
    const struct vk_about about = {.label = "fill", .transfer = true, .bytes = (double)dst.size};
    struct vk_command *command = vk_list_add(device, VK_COMMAND_FILL, 0, &touch, 1, &about);
    if (!command)
        return false;
    command->fill.to = dst.block->buffer;
    command->fill.offset = dst.offset;
    command->fill.size = dst.size;
    command->fill.value = value;
    device->stream.to_host |= dst.block->kind == VK_MEMORY_READBACK;
    device->counters.copies++;
    return true;
}

/* ---- host to device ---------------------------------------------------------------------------------------------- */

static bool make_staging(vk_device *device)
{
    vk_range *staging = &device->transfer.staging;
    if (!staging->block)
        *staging = vk_alloc(device, STAGING_BYTES, VK_MEMORY_UPLOAD, "the staging ring");
    return staging->block;
}

/* Reserves staging space, waiting for the oldest work if there is none. */
static bool stage(vk_device *device, uint64_t bytes, vk_range *piece)
{
    struct vk_transfer *transfer = &device->transfer;
    const struct vk_stream *stream = &device->stream;
    uint64_t at = (transfer->head + STAGING_ALIGN - 1) / STAGING_ALIGN * STAGING_ALIGN;
    if (at % STAGING_BYTES + bytes > STAGING_BYTES)
        at = (at / STAGING_BYTES + 1) * STAGING_BYTES;
    while (at + bytes - transfer->tail > STAGING_BYTES) {
        if (stream->first == stream->next && !vk_stream_pending(device)) {
            transfer->tail = transfer->head; /* nothing uses the ring */
            break;
        }
        if (stream->first == stream->next && !vk_submit(device))
            return false;
        if (!vk_stream_wait(device, stream->submits[stream->first % VK_SUBMITS].value))
            return false;
    }
    transfer->head = at + bytes;
    *piece = (vk_range){transfer->staging.block, transfer->staging.offset + at % STAGING_BYTES, bytes};
    return true;
}

bool vk_upload(vk_device *device, vk_range dst, const void *data, uint64_t bytes)
{
    if (!check_range("uploading", device, dst))
        return false;
    if (bytes > dst.size)
        return cs_fail("uploading %llu bytes into %llu", (unsigned long long)bytes, (unsigned long long)dst.size);
    if (!make_staging(device))
        return false;
    for (uint64_t done = 0; done < bytes && !device->dry;) {
        uint64_t now = bytes - done < STAGING_PIECE ? bytes - done : STAGING_PIECE;
        const struct vk_about upload = {.label = "upload", .once = true};
        vk_range piece;
        if (!stage(device, now, &piece))
            return false;
        memcpy(vk_host(piece), (const uint8_t *)data + done, now);
        if (!copy_range(device, (vk_range){dst.block, dst.offset + done, now}, piece, false, upload))
            return false;
        device->transfer.recorded = device->transfer.head;
        done += now;
    }
    return true;
}

/* ---- device to host ---------------------------------------------------------------------------------------------- */

uint64_t vk_read_later(vk_device *device, vk_range src)
{
    static const uint8_t dry_bytes[VK_READ_LATER_BYTES];
    struct vk_transfer *transfer = &device->transfer;
    if (!check_range("reading", device, src))
        return 0;
    if (src.size > VK_READ_LATER_BYTES)
        return cs_fail("reading %s later: a ticket holds at most %s", vk_size_text(src.size),
                       vk_size_text(VK_READ_LATER_BYTES));
    if (!transfer->ring.block)
        transfer->ring = vk_alloc(device, VK_TICKETS * VK_READ_LATER_BYTES, VK_MEMORY_READBACK, "the readback ring");
    if (!transfer->ring.block)
        return 0;
    uint64_t ticket = transfer->ticket + 1, slot = ticket % VK_TICKETS;
    vk_range dst = {transfer->ring.block, transfer->ring.offset + slot * VK_READ_LATER_BYTES, src.size};
    if (!device->dry && src.size &&
        !copy_range(device, dst, src, true, (struct vk_about){.label = "read", .once = true}))
        return 0;
    transfer->tickets[slot].value = device->dry || !src.size ? 0 : vk_next_value(device);
    transfer->tickets[slot].bytes = device->dry ? dry_bytes : vk_host(dst);
    return transfer->ticket = ticket;
}

const void *vk_read_ready(vk_device *device, uint64_t ticket)
{
    struct vk_transfer *transfer = &device->transfer;
    if (!ticket || ticket > transfer->ticket || transfer->ticket - ticket >= VK_TICKETS)
        return NULL;
    uint64_t slot = ticket % VK_TICKETS;
    return vk_done(device, transfer->tickets[slot].value) ? transfer->tickets[slot].bytes : NULL;
}

static bool read_piece(vk_device *device, vk_range src, vk_range landing, void *data)
{
    landing.size = src.size;
    if (!copy_range(device, landing, src, true, (struct vk_about){.label = "read", .once = true}))
        return false;
    uint64_t value = vk_submit(device);
    if (!value || !vk_wait(device, value))
        return false;
    memcpy(data, vk_host(landing), src.size);
    return true;
}

bool vk_read(vk_device *device, vk_range src, void *data, uint64_t bytes)
{
    if (!check_range("reading", device, src))
        return false;
    if (bytes > src.size)
        return cs_fail("reading %llu bytes of %llu", (unsigned long long)bytes, (unsigned long long)src.size);
    vk_range landing = vk_alloc(device, bytes < READ_PIECE ? bytes : READ_PIECE, VK_MEMORY_READBACK, "reading back");
    bool ok = landing.block;
    if (device->dry)
        memset(data, 0, bytes);
    for (uint64_t done = 0; ok && !device->dry && done < bytes; done += READ_PIECE) {
        uint64_t now = bytes - done < READ_PIECE ? bytes - done : READ_PIECE;
        ok = read_piece(device, (vk_range){src.block, src.offset + done, now}, landing, (uint8_t *)data + done);
    }
    vk_free(device, &landing);
    return ok;
}

void vk_transfer_close(vk_device *device)
{
    vk_free(device, &device->transfer.staging);
    vk_free(device, &device->transfer.ring);
    device->transfer = (struct vk_transfer){0};
}
