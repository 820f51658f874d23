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

/* Fills caps; false where Vulkan 1.2, timeline semaphores or a compute queue is missing. */
bool vk_probe(const struct vk_api *api, VkPhysicalDevice physical, vk_caps *caps);
bool vk_has_extension(const struct vk_api *api, VkPhysicalDevice physical, const char *name);
/* A queue family with compute, preferably without graphics; UINT32_MAX if none. `*bits`: valid timestamp bits. */
uint32_t vk_queue_family(const struct vk_api *api, VkPhysicalDevice physical, uint32_t *bits);

/* Makes `link` the structure that follows `head` in its pNext chain. */
static inline void vk_link(void *head, void *link)
{
    VkBaseOutStructure *first = head, *second = link;
    second->pNext = first->pNext;
    first->pNext = second;
}

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
/* Before a command asks for views: where the block's table is nearly full (a growing key/value cache asks for new
 * ranges without end), waits until nothing in flight uses its views and empties it. */
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

/* ---- stream (list.c, encode.c, stream.c, order.c, transfer.c, profile.c, trace.c) -------------------------------- */

enum {
    VK_PART = 32,     /* commands of one command buffer, which is what is reused */
    VK_PARTS = 64,    /* command buffers of one submit */
    VK_SUBMITS = 64,  /* in flight */
    VK_ENCODED = 256, /* command buffers kept */
    VK_RECENT = 32,   /* labels kept for a device-lost report */
    VK_TICKETS = 64,
};

enum vk_command_kind { VK_COMMAND_DISPATCH, VK_COMMAND_COPY, VK_COMMAND_FILL, VK_COMMAND_HOST_BARRIER };

/* A bound buffer, or a texel view. */
struct vk_bound {
    uint64_t handle, offset, size;
};

/* A command as it is recorded: everything that its encoding depends on and nothing else, without gaps, so that equal
 * commands are equal bytes. */
struct vk_command {
    uint32_t bytes;         /* with what follows, a multiple of 8 */
    uint16_t kind, barrier; /* enum vk_command_kind; whether it waits for all commands before */
    uint32_t row;           /* of the profile; 0 without timestamps */
    uint32_t binds, push_bytes, layout;
    union {
        struct {
            VkPipeline pipeline;
            uint32_t groups[4]; /* [3]: 0, as commands are compared byte by byte */
        } dispatch; /* struct vk_bound[binds] and the push constants follow */
        struct {
            VkBuffer from, to;
            uint64_t from_offset, to_offset, size;
        } copy;
        struct {
            VkBuffer to;
            uint64_t offset, size, value;
        } fill;
    };
};

/* What a profile and a trace say of a command. */
struct vk_about {
    const char *label;
    bool transfer; /* a copy or a fill, not a dispatch */
    bool once;     /* will hardly come again the same: names a place in a ring, say, that moves on */
    double flops, bytes;
};

/* Up to VK_PART commands, not yet encoded. Those that come once have lists of their own: what lies between them is then
 * cut the same way each time and found again. */
struct vk_list {
    uint8_t *bytes;
    size_t size, capacity;
    uint32_t count;
    bool once;
    double flops[VK_PART], traffic[VK_PART];
};

/* A command buffer and the list that it was encoded from. */
struct vk_encoded {
    VkCommandPool pool;
    VkCommandBuffer buffer;
    VkDescriptorPool *set_pools;
    size_t set_pool, set_pool_count, set_pool_capacity; /* set_pool: the one in use */
    struct vk_list list;
    uint64_t hash;
    uint64_t used;      /* when it was last; 0 = never to be reused */
    uint32_t in_flight; /* times recorded or submitted, and not done */
    VkQueryPool queries;
    bool stamped, traced; /* has timestamps; they go into the trace */
};

struct vk_submit {
    uint64_t value;       /* of the timeline once done */
    uint64_t staging_end; /* staging bytes up to here are free once done: its parts and those before have the copies */
    struct vk_encoded *parts[VK_PARTS];
    uint32_t part_count;
};

struct vk_stream {
    VkSemaphore timeline;
    uint64_t submitted, completed; /* timeline values */
    struct vk_list list;           /* being recorded */
    struct vk_encoded *encoded[VK_ENCODED];
    uint32_t encoded_count;
    uint64_t uses;
    struct vk_submit submits[VK_SUBMITS];
    uint64_t first, next; /* in flight: submits[first % VK_SUBMITS] .. next - 1; being recorded: next */
    double work;          /* share of a submit's allowance that is recorded */
    bool to_host;         /* READBACK memory is written */
    uint64_t epoch;       /* counts barriers */
    struct {
        char label[48];
        uint64_t value;
    } recent[VK_RECENT];
    uint32_t recent_count;
};

struct vk_transfer {
    vk_range staging;
    uint64_t head, recorded, tail; /* bytes ever staged, of which copies are recorded, and released */
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
    uint64_t latest; /* the latest timestamp that was read */
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
    char *cache_folder; /* NULL: none */
    void *attached;
    void (*release)(void *attached);
};

/* True on VK_SUCCESS; otherwise the error "<what>: <result>", and after a device loss its report. */
bool vk_check(vk_device *device, VkResult result, const char *what);
/* False with the loss report as the error once the device is lost. */
bool vk_alive(const vk_device *device);
/* Names an object for the validation layer's messages; does nothing without it. */
void vk_name_object(vk_device *device, VkObjectType type, uint64_t handle, const char *name);

bool vk_stream_init(vk_device *device);
void vk_stream_close(vk_device *device);
/* Adds a command buffer to the submit being recorded, and submits that one where it is full. */
bool vk_stream_add_part(vk_device *device, struct vk_encoded *part);
/* Whether anything is recorded and not submitted. */
bool vk_stream_pending(const vk_device *device);
/* Collects what is finished. */
bool vk_stream_reap(vk_device *device);
/* Blocks until `value` is reached; a host wait if that takes any time. */
bool vk_stream_wait(vk_device *device, uint64_t value);

struct vk_touch {
    struct vk_block *block;
    uint64_t lo, hi;
    bool write;
};
/* Whether a command conflicts with what ran since the last barrier and so needs one; remembers its accesses. */
bool vk_order(vk_device *device, const struct vk_touch *touches, size_t count, bool *barrier);

/* Appends a command, ordered after those it conflicts with, with `extra` bytes behind it; everything that is not set
 * here is zero and the caller's to fill. `about` NULL: not worth a word. NULL on failure. */
struct vk_command *vk_list_add(vk_device *device, enum vk_command_kind kind, size_t extra,
                               const struct vk_touch *touches, size_t count, const struct vk_about *about);

/* Makes the recorded list a part of the next submit: by a command buffer that holds the same list, else by a new
 * one. */
bool vk_encode(vk_device *device);
/* Nothing encoded so far is reused: something it names goes away. */
void vk_encoded_forget(vk_device *device);
void vk_encoded_close(vk_device *device);

void vk_transfer_close(vk_device *device);

/* Whether commands get timestamps. */
bool vk_stamping(const vk_device *device);
/* The label's row, made if missing; VK_MAP_NONE on failure. */
uint32_t vk_profile_row(vk_device *device, const struct vk_about *about);
/* Reads the timestamps of a command buffer that is done. */
bool vk_profile_collect(vk_device *device, struct vk_encoded *encoded);
void vk_profile_close(vk_device *device);
/* Ticks from one timestamp to a later one. */
uint64_t vk_ticks_between(const vk_device *device, uint64_t from, uint64_t to);

/* Whether the host's and the device's clock can be read at one moment. */
bool vk_can_calibrate(const vk_device *device);
/* Adds a command between two timestamps to the trace. */
void vk_trace_command(const vk_device *device, const struct vk_profile_row *row, uint64_t begin, uint64_t end,
                      double flops, double bytes);

#endif
