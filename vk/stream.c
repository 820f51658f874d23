/* Command buffers of the one in-order stream: recording, submission, completion. */
#include "vk/internal.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/trace.h"

bool vk_stream_init(vk_device *device)
{
    struct vk_stream *stream = &device->stream;
    stream->submitted = stream->completed = stream->epoch = 1; /* 0 means failure to callers */
    VkSemaphoreTypeCreateInfo type = {.sType = VK_STRUCTURE_TYPE_SEMAPHORE_TYPE_CREATE_INFO,
                                      .semaphoreType = VK_SEMAPHORE_TYPE_TIMELINE, .initialValue = stream->completed};
    VkSemaphoreCreateInfo info = {.sType = VK_STRUCTURE_TYPE_SEMAPHORE_CREATE_INFO, .pNext = &type};
    return vk_check(device, device->api.CreateSemaphore(device->handle, &info, NULL, &stream->timeline),
                    "creating a timeline semaphore");
}

static void close_commands(vk_device *device, struct vk_commands *commands)
{
    if (commands->pool)
        device->api.DestroyCommandPool(device->handle, commands->pool, NULL);
    for (size_t i = 0; i < commands->set_pool_count; i++)
        device->api.DestroyDescriptorPool(device->handle, commands->set_pools[i], NULL);
    if (commands->queries)
        device->api.DestroyQueryPool(device->handle, commands->queries, NULL);
    free(commands->set_pools);
    free(commands->query_rows);
    free(commands->query_flops);
    free(commands->query_bytes);
}

void vk_stream_close(vk_device *device)
{
    struct vk_stream *stream = &device->stream;
    for (size_t i = 0; i < VK_COMMANDS; i++)
        close_commands(device, &stream->commands[i]);
    if (stream->timeline)
        device->api.DestroySemaphore(device->handle, stream->timeline, NULL);
    *stream = (struct vk_stream){0};
}

/* ---- recording --------------------------------------------------------------------------------------------------- */

static bool create_commands(vk_device *device, struct vk_commands *commands)
{
    VkCommandPoolCreateInfo pool = {.sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO,
                                    .flags = VK_COMMAND_POOL_CREATE_TRANSIENT_BIT, .queueFamilyIndex = device->family};
    if (!vk_check(device, device->api.CreateCommandPool(device->handle, &pool, NULL, &commands->pool),
                  "creating a command pool"))
        return false;
    VkCommandBufferAllocateInfo info = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
                                        .commandPool = commands->pool, .commandBufferCount = 1};
    return vk_check(device, device->api.AllocateCommandBuffers(device->handle, &info, &commands->buffer),
                    "creating a command buffer");
}

static bool begin(vk_device *device, struct vk_commands *commands)
{
    if (!commands->buffer && !create_commands(device, commands))
        return false;
    VkCommandBufferBeginInfo info = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO,
                                     .flags = VK_COMMAND_BUFFER_USAGE_ONE_TIME_SUBMIT_BIT};
    if (!vk_check(device, device->api.ResetCommandPool(device->handle, commands->pool, 0), "resetting a command pool") ||
        !vk_check(device, device->api.BeginCommandBuffer(commands->buffer, &info), "starting a command buffer"))
        return false;
    for (size_t i = 0; i < commands->set_pool_count; i++)
        device->api.ResetDescriptorPool(device->handle, commands->set_pools[i], 0);
    commands->set_pool = 0;
    commands->to_host = false;
    commands->work = 0;
    commands->query_count = 0;
    commands->traced = device->tracing;
    return true;
}

struct vk_commands *vk_stream_record(vk_device *device)
{
    struct vk_stream *stream = &device->stream;
    struct vk_commands *commands = &stream->commands[stream->next % VK_COMMANDS];
    if (stream->recording && commands->query_count + 2 <= VK_QUERIES)
        return commands;
    if (!vk_alive(device) || (stream->recording && !vk_submit(device)) || !vk_stream_reap(device))
        return NULL;
    if (stream->next - stream->first == VK_COMMANDS &&
        !vk_stream_wait(device, stream->commands[stream->first % VK_COMMANDS].value))
        return NULL;
    commands = &stream->commands[stream->next % VK_COMMANDS];
    stream->recording = begin(device, commands);
    return stream->recording ? commands : NULL;
}

void vk_stream_note(vk_device *device, const char *label)
{
    struct vk_stream *stream = &device->stream;
    uint32_t slot = stream->recent_count++ % VK_RECENT;
    size_t length = strnlen(label, sizeof stream->recent[slot].label - 1);
    memcpy(stream->recent[slot].label, label, length);
    stream->recent[slot].label[length] = 0;
    stream->recent[slot].value = stream->submitted + 1;
}

/* ---- submission -------------------------------------------------------------------------------------------------- */

static void barrier_to_host(vk_device *device, struct vk_commands *commands)
{
    VkMemoryBarrier memory = {.sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER,
                              .srcAccessMask = VK_ACCESS_TRANSFER_WRITE_BIT, .dstAccessMask = VK_ACCESS_HOST_READ_BIT};
    device->api.CmdPipelineBarrier(commands->buffer, VK_PIPELINE_STAGE_TRANSFER_BIT, VK_PIPELINE_STAGE_HOST_BIT, 0, 1,
                                   &memory, 0, NULL, 0, NULL);
}

uint64_t vk_submit(vk_device *device)
{
    struct vk_stream *stream = &device->stream;
    uint64_t began = cs_trace_now();
    if (!vk_alive(device))
        return 0;
    if (!stream->recording)
        return stream->submitted;
    struct vk_commands *commands = &stream->commands[stream->next % VK_COMMANDS];
    if (commands->to_host)
        barrier_to_host(device, commands);
    stream->recording = false;
    uint64_t value = stream->submitted + 1;
    VkTimelineSemaphoreSubmitInfo timeline = {.sType = VK_STRUCTURE_TYPE_TIMELINE_SEMAPHORE_SUBMIT_INFO,
                                              .signalSemaphoreValueCount = 1, .pSignalSemaphoreValues = &value};
    VkSubmitInfo info = {.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO, .pNext = &timeline,
                         .commandBufferCount = 1, .pCommandBuffers = &commands->buffer,
                         .signalSemaphoreCount = 1, .pSignalSemaphores = &stream->timeline};
    if (!vk_check(device, device->api.EndCommandBuffer(commands->buffer), "ending a command buffer") ||
        !vk_check(device, device->api.QueueSubmit(device->queue, 1, &info, VK_NULL_HANDLE), "submitting work"))
        return 0;
    commands->value = stream->submitted = value;
    commands->staging_end = device->transfer.head;
    stream->next++;
    device->counters.submits++;
    cs_trace_end(CS_TRACE_HOST, "submit", began);
    return value;
}

uint64_t vk_next_value(const vk_device *device)
{
    return device->stream.submitted + 1;
}

/* ---- completion -------------------------------------------------------------------------------------------------- */

bool vk_stream_reap(vk_device *device)
{
    struct vk_stream *stream = &device->stream;
    if (!vk_alive(device) || !vk_check(device, device->api.GetSemaphoreCounterValue(device->handle, stream->timeline,
                                                                                   &stream->completed), "asking for progress"))
        return false;
    while (stream->first < stream->next) {
        struct vk_commands *commands = &stream->commands[stream->first % VK_COMMANDS];
        if (commands->value > stream->completed)
            break;
        device->transfer.tail = commands->staging_end;
        stream->first++;
        if (!vk_profile_collect(device, commands))
            return false;
    }
    return true;
}

bool vk_stream_wait(vk_device *device, uint64_t value)
{
    struct vk_stream *stream = &device->stream;
    VkSemaphoreWaitInfo info = {.sType = VK_STRUCTURE_TYPE_SEMAPHORE_WAIT_INFO,
                                .semaphoreCount = 1, .pSemaphores = &stream->timeline, .pValues = &value};
    if (!vk_stream_reap(device))
        return false;
    if (stream->completed >= value)
        return true;
    device->counters.host_waits++;
    uint64_t began = cs_trace_now();
    bool ok = vk_check(device, device->api.WaitSemaphores(device->handle, &info, UINT64_MAX), "waiting for the device");
    cs_trace_end(CS_TRACE_HOST, "wait for the device", began);
    return ok && vk_stream_reap(device);
}

bool vk_done(vk_device *device, uint64_t value)
{
    struct vk_stream *stream = &device->stream;
    if (stream->completed >= value)
        return true;
    return value <= stream->submitted && vk_stream_reap(device) && stream->completed >= value;
}

bool vk_wait(vk_device *device, uint64_t value)
{
    struct vk_stream *stream = &device->stream;
    if (value > stream->submitted && !vk_submit(device))
        return false;
    if (value > stream->submitted)
        return cs_fail("waiting for timeline value %llu, but only %llu are submitted", (unsigned long long)value,
                       (unsigned long long)stream->submitted);
    return vk_stream_wait(device, value);
}
