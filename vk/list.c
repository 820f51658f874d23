/* The list of recorded commands. */
#include <string.h>

#include "base/memory.h"
#include "vk/internal.h"

enum { FIRST_LIST_BYTES = 16 << 10 };

static void note(struct vk_stream *stream, const char *label)
{
    uint32_t slot = stream->recent_count++ % VK_RECENT;
    size_t length = strnlen(label, sizeof stream->recent[slot].label - 1);
    memcpy(stream->recent[slot].label, label, length);
    stream->recent[slot].label[length] = 0;
    stream->recent[slot].value = stream->submitted + 1;
}

/* Room for one more command of that size. */
static bool make_room(vk_device *device, size_t bytes, bool once)
{
    struct vk_list *list = &device->stream.list;
    bool ends = list->count == VK_PART || (list->count && list->once != once);
    if (ends && !vk_encode(device))
        return false;
    list->once = once;
    size_t wanted = list->size + bytes < FIRST_LIST_BYTES ? FIRST_LIST_BYTES : list->size + bytes;
    return cs_grow(&list->bytes, &list->capacity, wanted, 1, "recorded commands");
}

struct vk_command *vk_list_add(vk_device *device, enum vk_command_kind kind, size_t extra,
                               const struct vk_touch *touches, size_t count, const struct vk_about *about)
{
    struct vk_list *list = &device->stream.list;
    size_t bytes = (sizeof(struct vk_command) + extra + 7) & ~(size_t)7;
    uint32_t row = 0;
    bool barrier, once = about ? about->once : list->count && list->once;
    if (!vk_alive(device) || !make_room(device, bytes, once) || !vk_order(device, touches, count, &barrier) ||
        (about && vk_stamping(device) && (row = vk_profile_row(device, about)) == VK_MAP_NONE))
        return NULL;
    struct vk_command *command = memset(list->bytes + list->size, 0, bytes);
    command->bytes = (uint32_t)bytes;
    command->kind = kind;
    command->barrier = barrier;
    command->row = row;
    list->flops[list->count] = about ? about->flops : 0;
    list->traffic[list->count] = about ? about->bytes : 0;
    list->size += bytes;
    list->count++;
    if (about)
        note(&device->stream, about->label);
    return command;
}
