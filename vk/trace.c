/* The device's rows of a trace: timestamps brought onto the host's clock. */
#include "base/clock.h"
#include "base/log.h"
#include "base/trace.h"
#include "vk/internal.h"

bool vk_can_calibrate(const vk_device *device)
{
    VkTimeDomainEXT domains[8];
    uint32_t count = sizeof domains / sizeof *domains, wanted = 0;
    if (!device->caps.timestamps || !device->api.GetPhysicalDeviceCalibrateableTimeDomainsEXT ||
        !vk_has_extension(&device->api, device->physical, VK_EXT_CALIBRATED_TIMESTAMPS_EXTENSION_NAME) ||
        device->api.GetPhysicalDeviceCalibrateableTimeDomainsEXT(device->physical, &count, domains) < 0)
        return false;
    for (uint32_t i = 0; i < count; i++)
        wanted += domains[i] == VK_TIME_DOMAIN_DEVICE_EXT || domains[i] == VK_TIME_DOMAIN_CLOCK_MONOTONIC_EXT;
    return wanted == 2;
}

static bool read_both_clocks(vk_device *device)
{
    const VkCalibratedTimestampInfoEXT infos[] = {
        {.sType = VK_STRUCTURE_TYPE_CALIBRATED_TIMESTAMP_INFO_EXT, .timeDomain = VK_TIME_DOMAIN_DEVICE_EXT},
        {.sType = VK_STRUCTURE_TYPE_CALIBRATED_TIMESTAMP_INFO_EXT, .timeDomain = VK_TIME_DOMAIN_CLOCK_MONOTONIC_EXT},
    };
    uint64_t now[2], deviation;
    VkResult result = device->api.GetCalibratedTimestampsEXT(device->handle, 2, infos, now, &deviation);
    if (!vk_check(device, result, "reading the clocks"))
        return false;
    device->trace = (struct vk_trace){now[0], now[1], 0};
    return true;
}

/* Without calibration: a command of an otherwise idle device ends between its submit and the host's knowing. */
static bool align_at_submit(vk_device *device)
{
    uint64_t value = device->stream.submitted;
    double before;
    if (!vk_stream_wait(device, value))
        return false;
    bool ok = vk_fill(device, (vk_range){device->heap.dummy, 0, VK_ALIGN}, 0);
    before = cs_seconds();
    ok = ok && (value = vk_submit(device)) && vk_stream_wait(device, value);
    device->trace.ticks = device->trace.latest;
    device->trace.host_ns = (uint64_t)(1e9 * (before + cs_seconds()) / 2);
    return ok;
}

bool vk_trace_start(vk_device *device)
{
    if (!device->caps.timestamps) {
        cs_log(CS_LOG_WARN, "device %s has no timestamps: the trace shows the host alone", device->caps.name);
        return true;
    }
    if (!vk_submit(device)) /* what came before stays out of the trace */
        return false;
    const vk_counters counters = device->counters;
    device->tracing = true;
    bool ok = device->calibrated ? read_both_clocks(device) : align_at_submit(device);
    device->counters = counters; /* nothing of this is the program's own */
    return ok;
}

bool vk_trace_stop(vk_device *device)
{
    bool ok = !device->tracing || vk_submit(device);
    device->tracing = false;
    return ok;
}

/* The host's time of a timestamp, which may lie before the moment both clocks were read. */
static uint64_t host_time(const vk_device *device, uint64_t ticks)
{
    const struct vk_trace *at = &device->trace;
    uint64_t after = vk_ticks_between(device, at->ticks, ticks), before = vk_ticks_between(device, ticks, at->ticks);
    const double ns = (double)device->caps.timestamp_ns;
    return after < before ? at->host_ns + (uint64_t)((double)after * ns)
                          : at->host_ns - (uint64_t)((double)before * ns);
}

void vk_trace_command(const vk_device *device, const struct vk_profile_row *row, uint64_t begin, uint64_t end,
                      double flops, double bytes)
{
    cs_trace_add(&(cs_trace_span){CS_TRACE_DEVICE, row->label, row->transfer ? "transfer" : "dispatch",
                                  host_time(device, begin), host_time(device, end),
                                  {{"GFLOP", flops / 1e9}, {"MB", bytes / 1e6}}});
}
