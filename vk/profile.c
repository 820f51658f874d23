/* Timestamps around every command, summed by label. */
#include "vk/internal.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

/* ---- recording --------------------------------------------------------------------------------------------------- */

bool vk_stamping(const vk_device *device)
{
    return device->profiling || device->tracing;
}

uint32_t vk_profile_row(vk_device *device, const struct vk_about *about)
{
    struct vk_profile *profile = &device->profile;
    const char *label = about->label;
    uint64_t hash = vk_hash(label, strlen(label), VK_HASH_SEED);
    size_t probe = 0;
    for (uint32_t i; (i = vk_map_next(&profile->map, hash, &probe)) != VK_MAP_NONE;)
        if (!strcmp(profile->rows[i].label, label))
            return i;
    struct vk_profile_row row = {.label = cs_strdup(label), .transfer = about->transfer};
    if (!row.label || !cs_grow(&profile->rows, &profile->capacity, profile->count + 1, sizeof row, "a profile") ||
        !vk_map_put(&profile->map, hash, (uint32_t)profile->count)) {
        free(row.label);
        return VK_MAP_NONE;
    }
    profile->rows[profile->count] = row;
    return (uint32_t)profile->count++;
}

uint64_t vk_ticks_between(const vk_device *device, uint64_t from, uint64_t to)
{
    const uint32_t bits = device->timestamp_bits;
    return (to - from) & (bits >= 64 ? UINT64_MAX : (UINT64_C(1) << bits) - 1);
}

/* ---- collecting -------------------------------------------------------------------------------------------------- */

static void collect_command(vk_device *device, const struct vk_encoded *encoded, uint32_t index, uint32_t row_index,
                            const uint64_t *stamps)
{
    struct vk_profile_row *row = &device->profile.rows[row_index];
    double flops = encoded->list.flops[index], bytes = encoded->list.traffic[index];
    if (encoded->traced)
        vk_trace_command(device, row, stamps[0], stamps[1], flops, bytes);
    row->calls++;
    row->ns += (double)vk_ticks_between(device, stamps[0], stamps[1]) * (double)device->caps.timestamp_ns;
    row->flops += flops;
    row->bytes += bytes;
    device->trace.latest = stamps[1];
}

bool vk_profile_collect(vk_device *device, struct vk_encoded *encoded)
{
    const struct vk_list *list = &encoded->list;
    uint64_t stamps[2 * VK_PART];
    VkResult result = device->api.GetQueryPoolResults(
        device->handle, encoded->queries, 0, 2 * list->count, 2 * list->count * sizeof *stamps, stamps, sizeof *stamps,
        VK_QUERY_RESULT_64_BIT | VK_QUERY_RESULT_WAIT_BIT);
    if (!vk_check(device, result, "reading timestamps"))
        return false;
    size_t at = 0;
    for (uint32_t i = 0; i < list->count; i++) {
        const struct vk_command *command = (const struct vk_command *)(list->bytes + at);
        if (command->kind != VK_COMMAND_HOST_BARRIER)
            collect_command(device, encoded, i, command->row, &stamps[2 * i]);
        at += command->bytes;
    }
    return true;
}

/* Everything recorded so far has been timed. Not one of the program's host waits. */
static bool settle(vk_device *device)
{
    uint64_t waits = device->counters.host_waits, value = vk_submit(device);
    bool ok = value && vk_stream_wait(device, value);
    device->counters.host_waits = waits;
    return ok;
}

static void clear(struct vk_profile *profile)
{
    for (size_t i = 0; i < profile->count; i++) {
        free(profile->rows[i].label);
    }
    free(profile->rows);
    vk_map_clear(&profile->map);
    profile->rows = NULL;
    profile->count = profile->capacity = 0;
}

void vk_profile_close(vk_device *device)
{
    clear(&device->profile);
}

void vk_profile_reset(vk_device *device)
{
    if (device->profiling && settle(device)) {
        clear(&device->profile);
        vk_encoded_forget(device); /* their rows are gone */
    }
    device->profile.since = device->counters;
}

/* ---- reporting --------------------------------------------------------------------------------------------------- */

bool vk_profile_get(vk_device *device, const char *label, double *ns, uint64_t *calls)
{
    *ns = 0;
    *calls = 0;
    if (!device->profiling)
        return cs_fail("there is no profile: it was not asked for or device %s has no timestamps", device->caps.name);
    if (!settle(device))
        return false;
    for (size_t i = 0; i < device->profile.count; i++) {
        const struct vk_profile_row *row = &device->profile.rows[i];
        if (label && strcmp(row->label, label))
            continue;
        *ns += row->ns;
        *calls += row->calls;
    }
    return true;
}

static int longer_first(const void *a, const void *b)
{
    const struct vk_profile_row *x = a, *y = b;
    return (x->ns < y->ns) - (x->ns > y->ns);
}

static bool print_rows(const struct vk_profile *profile, FILE *out)
{
    struct vk_profile_row *rows = cs_alloc(profile->count, sizeof *rows, "a profile table");
    double total = 0;
    if (!rows)
        return false;
    for (size_t i = 0; i < profile->count; i++) {
        rows[i] = profile->rows[i];
        total += rows[i].ns;
    }
    qsort(rows, profile->count, sizeof *rows, longer_first);
    fprintf(out, "%-32s %8s %10s %6s %8s %7s\n", "kernel", "calls", "ms", "share", "GFLOP/s", "GB/s");
    for (size_t i = 0; i < profile->count; i++)
        fprintf(out, "%-32s %8llu %10.3f %5.1f%% %8.2f %7.2f\n", rows[i].label, (unsigned long long)rows[i].calls,
                rows[i].ns / 1e6, total > 0 ? 100 * rows[i].ns / total : 0,
                rows[i].ns > 0 ? rows[i].flops / rows[i].ns : 0, rows[i].ns > 0 ? rows[i].bytes / rows[i].ns : 0);
    fprintf(out, "%-32s %8s %10.3f\n", "total", "", total / 1e6);
    free(rows);
    return true;
}

bool vk_profile_print(vk_device *device, FILE *out)
{
    const vk_counters *since = &device->profile.since;
    if (!settle(device))
        return false;
    if (!device->profiling)
        fprintf(out, "no kernel times: profiling is off or device %s has no timestamps\n", device->caps.name);
    else if (!print_rows(&device->profile, out))
        return false;
    vk_counters now = device->counters;
    fprintf(out, "%llu dispatches, %llu barriers, %llu copies, %llu submits, %llu host waits, %llu pipelines made\n",
            (unsigned long long)(now.dispatches - since->dispatches),
            (unsigned long long)(now.barriers - since->barriers), (unsigned long long)(now.copies - since->copies),
            (unsigned long long)(now.submits - since->submits),
            (unsigned long long)(now.host_waits - since->host_waits),
            (unsigned long long)(now.pipelines - since->pipelines));
    fprintf(out, "command buffers: %llu encoded, %llu reused\n", (unsigned long long)(now.encoded - since->encoded),
            (unsigned long long)(now.reused - since->reused));
    return true;
}
