/* What the files of vk/ share. */
#ifndef VK_INTERNAL_H
#define VK_INTERNAL_H

#include "base/error.h"
#include "vk/api.h"
#include "vk/vk.h"

/* ---- small containers (map.c, span.c) --------------------------------------------------------------------------- */

uint64_t vk_hash(const void *data, size_t bytes, uint64_t seed); /* FNV-1a, 64 bits */
enum { VK_HASH_SEED = 0 };

/* Open addressing from a 64-bit hash to an index; the caller compares the full key behind the index. */
struct vk_map {
    struct vk_map_entry {
        uint64_t hash;
        uint32_t index1; /* index + 1; 0 = empty */
    } *entries;
    size_t count, capacity;
};
#define VK_MAP_NONE UINT32_MAX
bool vk_map_put(struct vk_map *map, uint64_t hash, uint32_t index);
/* Next index with that hash; start with *probe = 0. VK_MAP_NONE at the end. */
uint32_t vk_map_next(const struct vk_map *map, uint64_t hash, size_t *probe);
void vk_map_clear(struct vk_map *map);

/* Sorted, disjoint, non-touching half-open intervals. */
struct vk_spans {
    struct vk_span {
        uint64_t lo, hi;
    } *items;
    size_t count, capacity;
};
bool vk_spans_add(struct vk_spans *spans, uint64_t lo, uint64_t hi);
bool vk_spans_overlap(const struct vk_spans *spans, uint64_t lo, uint64_t hi);
/* Cuts `bytes` off the front of interval `index`. */
void vk_spans_take(struct vk_spans *spans, size_t index, uint64_t bytes);

/* ---- instance (instance.c, probe.c) ------------------------------------------------------------------------------ */

struct vk_instance {
    struct vk_api api;
    VkInstance handle;
    VkDebugUtilsMessengerEXT messenger;
    bool validation;
};
bool vk_instance_open(struct vk_instance *instance);
void vk_instance_close(struct vk_instance *instance);

struct vk_candidate {
    VkPhysicalDevice handle;
    vk_caps caps;
};
/* Usable devices; free() the array. */
bool vk_instance_devices(struct vk_instance *instance, struct vk_candidate **devices, size_t *count);
size_t vk_best_device(const struct vk_candidate *devices, size_t count);
/* Index of the device that a selector names. */
bool vk_select(const struct vk_candidate *devices, size_t count, const char *selector, size_t *chosen);

/* Fills caps; `*usable` false where Vulkan 1.2, timeline semaphores or a compute queue is missing. */
bool vk_probe(const struct vk_api *api, VkPhysicalDevice physical, vk_caps *caps, bool *usable);
bool vk_has_extension(const struct vk_api *api, VkPhysicalDevice physical, const char *name);
/* A queue family with compute, preferably without graphics; UINT32_MAX if none. `*bits`: valid timestamp bits. */
uint32_t vk_queue_family(const struct vk_api *api, VkPhysicalDevice physical, uint32_t *bits);

/* ---- memory (memory.c, view.c) ----------------------------------------------------------------------------------- */

enum { VK_ALIGN = 256, VK_MEMORY_KINDS = 3 };

struct vk_view {
    uint64_t offset, size;
    VkBufferView handle;
};

struct vk_block {
    VkBuffer buffer; /* none on a dry block */
    VkDeviceMemory memory;
    uint8_t *mapped;
    uint64_t size;
    enum vk_memory kind;
    bool dry;
    struct vk_spans holes;         /* free space */
    struct vk_spans reads, writes; /* since the last barrier; valid while epoch is the stream's */
    uint64_t epoch;
    struct vk_view *views;
    size_t view_count, view_capacity;
    struct vk_map view_map;
};

struct vk_heap {
    struct vk_block **blocks;
    size_t count, capacity;
    uint64_t used, peak, reserved, host_used, host_peak, host_reserved;
    uint64_t limit; /* vk_params.memory_limit */
    uint32_t type[VK_MEMORY_KINDS];
    uint32_t device_heap; /* index of the heap behind VK_MEMORY_DEVICE */
    uint64_t device_heap_bytes;
    struct vk_block *dummy; /* stands in for "none" binds */
};

bool vk_memory_init(vk_device *device);
void vk_memory_close(vk_device *device);
/* The cached texel view of a range, rounded up to whole texels. */
VkBufferView vk_texel_view(vk_device *device, struct vk_block *block, uint64_t offset, uint64_t size);
/* Before a command asks for views: where ever new ranges (a growing key/value cache) have filled the block's table, starts it
 * over once nothing in flight uses the old ones. */
bool vk_views_make_room(vk_device *device, struct vk_block *block);
void vk_views_destroy(vk_device *device, struct vk_block *block);
/* "1.5 GiB" into a static buffer of this thread (four are kept). */
const char *vk_size_text(uint64_t bytes);

/* ---- kernels (kernel.c, pipeline.c, cache.c, runtime.c) ---------------------------------------------------------- */

struct vk_layout {
    uint32_t binds, texels; /* count; bit i = binding i is a texel buffer */
    VkDescriptorSetLayout set;
    VkPipelineLayout handle;
};

struct vk_pipeline_key {
    uint32_t kernel, binds, texels, subgroup, specs;
    uint32_t spec[VK_MAX_SPECS];
};

struct vk_pipeline {
    struct vk_pipeline_key key;
    VkPipeline handle;
    uint32_t layout; /* index */
};

struct vk_kernels {
    struct vk_map names;     /* -> vk_kernel_sources */
    VkShaderModule *modules; /* one per kernel, made at first use */
    struct vk_layout *layouts;
    size_t layout_count, layout_capacity;
    struct vk_pipeline *pipelines;
    size_t pipeline_count, pipeline_capacity;
    struct vk_map pipeline_map;
    VkPipelineCache cache;
    char *cache_path;   /* NULL = not kept */
    uint64_t code_hash; /* of all embedded SPIR-V */
    size_t cache_loaded_bytes; /* of the file; equal size at the end = nothing new to write */
};

bool vk_kernels_init(vk_device *device, const char *cache_folder);
void vk_kernels_close(vk_device *device);
/* Index of a kernel; VK_MAP_NONE with the error set if there is none. */
uint32_t vk_kernel_find(vk_device *device, const char *name);
const struct vk_pipeline *vk_pipeline_get(vk_device *device, const struct vk_pipeline_key *key);

/* The pipeline cache on disk. Neither fails: a cache is a convenience. */
void vk_cache_load(vk_device *device, const char *folder);
void vk_cache_save(vk_device *device);

/* Compiles a kernel's file from `folder`; `*code` is released with free(). */
bool vk_runtime_compile(const vk_kernel_source *source, const char *folder, uint32_t **code, size_t *bytes);

/* ---- stream (stream.c, order.c, transfer.c, profile.c, trace.c) ----------------------------------------------------------- */

enum {
    VK_COMMANDS = 64,       /* command buffers in flight */
    VK_QUERIES = 2048,      /* timestamps of one command buffer */
    VK_RECENT = 32,         /* labels kept for a device-lost report */
    VK_TICKETS = 64,
    VK_TICKET_BYTES = 64 * 1024,
};

struct vk_commands {
    VkCommandPool pool;
    VkCommandBuffer buffer;
    VkDescriptorPool *set_pools;
    size_t set_pool, set_pool_count, set_pool_capacity; /* set_pool: the one in use */
    uint64_t value;       /* of the timeline once done */
    uint64_t staging_end; /* staging bytes up to here are free once done */
    bool to_host;         /* writes READBACK memory */
    double work;          /* share of a submit's allowance */
    uint32_t recorded;    /* commands */
    VkQueryPool queries;
    uint32_t query_count;
    uint32_t *query_rows; /* profile row of each pair */
    double *query_flops, *query_bytes;
    bool traced;
};

struct vk_stream {
    VkSemaphore timeline;
    uint64_t submitted, completed; /* timeline values */
    struct vk_commands commands[VK_COMMANDS];
    uint64_t first, next; /* in flight: commands[first % VK_COMMANDS] .. next - 1; recording: next, if `recording` */
    bool recording;
    uint64_t epoch; /* counts barriers */
    struct {
        char label[48];
        uint64_t value;
    } recent[VK_RECENT];
    uint32_t recent_count;
};

struct vk_transfer {
    vk_range staging;
    uint64_t head, tail; /* bytes ever staged and released */
    vk_range ring;
    uint64_t ticket;
    struct {
        uint64_t value;
        const void *bytes;
    } tickets[VK_TICKETS];
};

struct vk_profile_row {
    char *label;
    bool transfer; /* copies and fills, not dispatches */
    uint64_t calls;
    double ns, flops, bytes;
    double *samples;
    size_t sample_count, sample_capacity;
};

struct vk_profile {
    struct vk_profile_row *rows;
    size_t count, capacity;
    struct vk_map map;
    vk_counters since; /* counters at the last reset */
};

/* One moment on both clocks. */
struct vk_trace {
    uint64_t ticks, host_ns;
};

struct vk_device {
    struct vk_instance instance;
    struct vk_api api;
    VkPhysicalDevice physical;
    VkDevice handle;
    VkQueue queue;
    uint32_t family, timestamp_bits;
    vk_caps caps;
    size_t index;
    bool profiling, tracing, calibrated, dry, lost;
    char lost_text[1024];
    struct vk_heap heap;
    struct vk_kernels kernels;
    struct vk_stream stream;
    struct vk_transfer transfer;
    struct vk_profile profile;
    struct vk_trace trace;
    vk_counters counters;
};

/* True on VK_SUCCESS; otherwise the error "<what>: <result>", and after a device loss its report. */
bool vk_check(vk_device *device, VkResult result, const char *what);
/* False with the loss report as the error once the device is lost. */
bool vk_alive(const vk_device *device);
/* Names an object for the validation layer's messages; does nothing without it. */
void vk_name_object(vk_device *device, VkObjectType type, uint64_t handle, const char *name);

bool vk_stream_init(vk_device *device);
void vk_stream_close(vk_device *device);
/* The command buffer being recorded; starts one if needed. NULL on failure. */
struct vk_commands *vk_stream_record(vk_device *device);
/* Collects finished command buffers. */
bool vk_stream_reap(vk_device *device);
/* Blocks until `value` is reached; a host wait if that takes any time. */
bool vk_stream_wait(vk_device *device, uint64_t value);
void vk_stream_note(vk_device *device, const char *label);

struct vk_touch {
    struct vk_block *block;
    uint64_t lo, hi;
    bool write;
};
/* Puts a barrier before a command that conflicts with what ran since the last one, and remembers its accesses. */
bool vk_order(vk_device *device, struct vk_commands *commands, const struct vk_touch *touches, size_t count);

void vk_transfer_close(vk_device *device);

/* What a profile and a trace say of a command. */
struct vk_about {
    const char *label;
    bool transfer; /* a copy or a fill, not a dispatch */
    double flops, bytes;
};
/* Timestamps around one command; nothing without profile or trace. False on failure. */
bool vk_profile_begin(vk_device *device, struct vk_commands *commands);
bool vk_profile_end(vk_device *device, struct vk_commands *commands, const struct vk_about *about);
bool vk_profile_collect(vk_device *device, struct vk_commands *commands);
void vk_profile_close(vk_device *device);
/* Ticks from one timestamp to a later one. */
uint64_t vk_ticks_between(const vk_device *device, uint64_t from, uint64_t to);

/* Whether the host's and the device's clock can be read at one moment. */
bool vk_can_calibrate(const vk_device *device);
/* Adds a command between two timestamps to the trace. */
void vk_trace_command(const vk_device *device, const struct vk_profile_row *row, uint64_t begin, uint64_t end,
                      double flops, double bytes);

#endif
