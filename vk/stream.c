/* The one in-order stream: submission and completion. */
#include "vk/internal.h"

#include <stdlib.h>

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

void vk_stream_close(vk_device *device)
{
    struct vk_stream *stream = &device->stream;
    vk_encoded_close(device);
    if (stream->timeline)
        device->api.DestroySemaphore(device->handle, stream->timeline, NULL);
    free(stream->list.bytes);
    *stream = (struct vk_stream){0};
}

/* ---- submission -------------------------------------------------------------------------------------------------- */

bool vk_stream_pending(const vk_device *device)
{
    const struct vk_stream *stream = &device->stream;
    return stream->list.count || stream->submits[stream->next % VK_SUBMITS].part_count;
}

static bool queue_submit(vk_device *device, const struct vk_submit *submit, uint64_t value)
{
    VkCommandBuffer buffers[VK_PARTS];
    for (uint32_t i = 0; i < submit->part_count; i++)
        buffers[i] = submit->parts[i]->buffer;
    VkTimelineSemaphoreSubmitInfo timeline = {.sType = VK_STRUCTURE_TYPE_TIMELINE_SEMAPHORE_SUBMIT_INFO,
                                              .signalSemaphoreValueCount = 1, .pSignalSemaphoreValues = &value};
    VkSubmitInfo info = {.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO, .pNext = &timeline,
                         .commandBufferCount = submit->part_count, .pCommandBuffers = buffers,
                         .signalSemaphoreCount = 1, .pSignalSemaphores = &device->stream.timeline};
    return vk_check(device, device->api.QueueSubmit(device->queue, 1, &info, VK_NULL_HANDLE), "submitting work");
}

/* Submits the parts there are. */
static bool submit_parts(vk_device *device)
{
    struct vk_stream *stream = &device->stream;
    struct vk_submit *submit = &stream->submits[stream->next % VK_SUBMITS];
    uint64_t began = cs_trace_now();
    submit->value = stream->submitted + 1;
    if (!queue_submit(device, submit, submit->value))
        return false;
    stream->submitted = submit->value;
    stream->next++;
    stream->work = 0;
    device->counters.submits++;
    cs_trace_end(CS_TRACE_HOST, "submit", began);
    /* The place of the next one. */
    if (stream->next - stream->first == VK_SUBMITS &&
        !vk_stream_wait(device, stream->submits[stream->first % VK_SUBMITS].value))
        return false;
    stream->submits[stream->next % VK_SUBMITS].part_count = 0;
    return true;
}

bool vk_stream_add_part(vk_device *device, struct vk_encoded *part)
{
    struct vk_stream *stream = &device->stream;
    struct vk_submit *submit = &stream->submits[stream->next % VK_SUBMITS];
    if (submit->part_count == VK_PARTS)
        return cs_fail("recording work: the work before it could not be submitted");
    submit->parts[submit->part_count++] = part;
    submit->staging_end = device->transfer.recorded;
    /* What is recorded next belongs to the next submit, which tickets count on. The last place is for a host
     * barrier. */
    return submit->part_count != VK_PARTS - 1 || vk_submit(device);
}

uint64_t vk_submit(vk_device *device)
{
    struct vk_stream *stream = &device->stream;
    if (!vk_alive(device))
        return 0;
    if (!vk_stream_pending(device))
        return stream->submitted;
    if (stream->to_host && !vk_list_add(device, VK_COMMAND_HOST_BARRIER, 0, NULL, 0, NULL))
        return 0;
    stream->to_host = false;
    if (!vk_encode(device) || !vk_stream_reap(device))
        return 0;
    /* Unless the list has filled the submit, which then has gone. */
    return !vk_stream_pending(device) || submit_parts(device) ? stream->submitted : 0;
}

uint64_t vk_next_value(const vk_device *device)
{
    return device->stream.submitted + 1;
}

/* ---- completion -------------------------------------------------------------------------------------------------- */

bool vk_stream_reap(vk_device *device)
{
    struct vk_stream *stream = &device->stream;
    if (!vk_alive(device) ||
        !vk_check(device, device->api.GetSemaphoreCounterValue(device->handle, stream->timeline, &stream->completed),
                  "asking for progress"))
        return false;
    while (stream->first < stream->next) {
        struct vk_submit *submit = &stream->submits[stream->first % VK_SUBMITS];
        if (submit->value > stream->completed)
            break;
        device->transfer.tail = submit->staging_end;
        stream->first++;
        for (uint32_t i = 0; i < submit->part_count; i++) {
            submit->parts[i]->in_flight--;
            if (submit->parts[i]->stamped && !vk_profile_collect(device, submit->parts[i]))
                return false;
        }
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
