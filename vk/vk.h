/* The Vulkan runtime: devices, memory, kernels, one in-order stream of work. Knows bytes and dispatches, not tensors.
 *
 * Errors follow base/error.h. Nothing here is thread-safe unless it says so: one device and its stream belong to one
 * thread (loader threads hand their bytes over). */
#ifndef VK_VK_H
#define VK_VK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* ---- devices ---------------------------------------------------------------------------------------------------- */

enum vk_type { VK_TYPE_DISCRETE, VK_TYPE_INTEGRATED, VK_TYPE_VIRTUAL, VK_TYPE_CPU, VK_TYPE_OTHER };

/* A shape that a subgroup multiplies at once (VK_KHR_cooperative_matrix): C [m,n] f32 += A [m,k] B [k,n], both f16 or
 * both bf16. */
typedef struct vk_matrix_shape {
    uint32_t m, n, k;
    bool bfloat16;
} vk_matrix_shape;

/* Matrices that a whole workgroup of so many invocations multiplies at once (VK_NV_cooperative_matrix2): of any sizes
 * that are multiples of these; types as above. */
typedef struct vk_matrix_grain {
    uint32_t m, n, k, invocations;
    bool bfloat16;
} vk_matrix_grain;

enum { VK_MAX_MATRIX_SHAPES = 16 };

/* What was probed: all that the choice of kernels depends on, and what csmoe devices prints. */
typedef struct vk_caps {
    char name[256], driver[256], driver_info[256];
    uint8_t uuid[16], pipeline_cache_uuid[16];
    enum vk_type type;
    uint32_t vendor_id, device_id, driver_version, api_version;
    uint32_t subgroup_size;                     /* of a compute shader that asks for nothing */
    uint32_t subgroup_min, subgroup_max;        /* equal to subgroup_size where it cannot be chosen */
    bool subgroup_control;                      /* a required size and full subgroups can be asked for in compute */
    bool subgroup_arithmetic, subgroup_shuffle; /* in compute shaders */
    uint32_t cores; /* multiprocessors or compute units; 0 where the driver does not say */
    uint32_t max_invocations, max_local_size[3], max_groups[3];
    uint32_t max_shared_bytes, max_push_bytes, max_binds; /* storage buffers per stage */
    uint64_t max_storage_range, max_allocation;
    uint32_t max_texel_elements; /* of 16 bytes */
    uint32_t storage_align, texel_align;
    bool float16, storage16, int64, memory_budget, push_descriptor, device_fault, timestamps;
    vk_matrix_shape matrix[VK_MAX_MATRIX_SHAPES]; /* as the driver lists them: none without cooperative matrices */
    uint32_t matrix_count;
    vk_matrix_grain matrix2[VK_MAX_MATRIX_SHAPES]; /* none without all that kernels use of the extension */
    uint32_t matrix2_count;
    uint32_t matrix2_max_size;     /* of a matrix in either direction */
    uint32_t matrix2_shared_bytes; /* that the driver takes of a workgroup's shared memory for them */
    float timestamp_ns;    /* nanoseconds per tick */
    uint64_t memory_bytes; /* of the heap that device-local allocations come from */
} vk_caps;

/* The device's cooperative matrix of that type with most products; the first listed among equals; NULL for none. */
const vk_matrix_shape *vk_matrix_find(const vk_caps *caps, bool bfloat16);

/* Usable devices (Vulkan >= 1.2, a compute queue, timeline semaphores), in the loader's order: the index that --device
 * takes. `*chosen`: the one "auto" takes: discrete > integrated > virtual > other > CPU, first of its kind. Release
 * with free(). Fails where there is no loader, no driver or no usable device, saying which. */
bool vk_list(vk_caps **devices, size_t *count, size_t *chosen);

typedef struct vk_device vk_device;

typedef struct vk_params {
    /* Index, part of the name (case-insensitive) or UUID (32 hex digits, dashes allowed); "auto"; NULL: $CSMOE_DEVICE,
     * else auto. A selector that matches none or several devices is an error that lists them. */
    const char *selector;
    bool profile;             /* timestamps around every command, which then run one after the other */
    bool quiet;               /* no line about the chosen device */
    const char *cache_folder; /* of the pipeline cache; NULL: $XDG_CACHE_HOME/csmoe or ~/.cache/csmoe; "" = no cache */
    uint64_t memory_limit;    /* bytes of device memory this device may hand out; 0 = the driver's budget */
} vk_params;

/* Opens a device with only the features used here; logs one line naming device, driver and (loudly) a CPU driver.
 * With $CSMOE_VALIDATION set the validation layer is enabled with synchronization checks, and every message is logged
 * and counted (vk_validation_messages). NULL on failure. */
vk_device *vk_open(const vk_params *params);
/* Waits for the device, frees all, writes the pipeline cache, nulls the pointer. */
void vk_close(vk_device **device);
const vk_caps *vk_device_caps(const vk_device *device);
/* What the layer above keeps per device, one object: released, before the device is, by vk_close(). */
void vk_attach(vk_device *device, void *data, void (*release)(void *data));
void *vk_attached(const vk_device *device);
/* Path of a file in the device's cache folder, which exists; free() it. NULL without a cache folder. */
char *vk_cache_file(const vk_device *device, const char *name);
/* Validation messages (warnings and errors) of this process so far; 0 where validation is off. */
uint32_t vk_validation_messages(void);

/* ---- memory ----------------------------------------------------------------------------------------------------- */

enum vk_memory {
    VK_MEMORY_DEVICE,   /* kernels only */
    VK_MEMORY_UPLOAD,   /* host writes (mapped, coherent), device copies from it */
    VK_MEMORY_READBACK, /* device copies into it, host reads (mapped, cached, coherent) */
};

typedef struct vk_block vk_block; /* one VkBuffer with its memory */

/* A suballocated range. A zeroed one (block NULL) is "none". Ranges are values; copying one does not copy memory, and
 * a sub-range {block, offset + n, m} may be bound as long as offset keeps caps.storage_align. */
typedef struct vk_range {
    vk_block *block;
    uint64_t offset, size; /* bytes */
} vk_range;

/* Hands out `bytes` (taking up a multiple of 256; the range's size is `bytes`) from the arenas of that kind, growing
 * them as needed. `what` names the use in errors: "out of device memory for <what>: 1.5 GiB wanted, 310 MiB available
 * of 8.0 GiB". none on failure. Content is undefined. Allocation and release take effect in recording order: a range
 * freed and handed out again is safe to use in later commands of the stream, which is ordered after the earlier ones by
 * tracked barriers. Not so for host access: free UPLOAD and READBACK ranges only after their work is done. */
vk_range vk_alloc(vk_device *device, uint64_t bytes, enum vk_memory kind, const char *what);
/* Returns the range; nulls it. None is fine. */
void vk_free(vk_device *device, vk_range *range);
/* Host address of an UPLOAD or READBACK range. */
void *vk_host(vk_range range);

typedef struct vk_memory_stats {
    uint64_t used, peak; /* device bytes handed out, now and at the highest */
    uint64_t reserved;   /* device bytes taken from the driver */
    uint64_t host_used, host_peak; /* bytes of UPLOAD and READBACK ranges, now and at the highest */
    uint64_t budget;     /* bytes this process may use, by the driver or memory_limit */
} vk_memory_stats;
vk_memory_stats vk_memory_get(const vk_device *device);
/* Restarts `peak` from what is used now. */
void vk_memory_reset_peak(vk_device *device);

/* ---- kernels ---------------------------------------------------------------------------------------------------- */

/* The embedded registry, made by shaders/meson.build. */
typedef struct vk_kernel_source {
    const char *name;
    const uint32_t *code;
    size_t bytes;
    const char *file, *arguments; /* for $CSMOE_SHADER_DIR: "gemm_tiled.comp", "--target-env=vulkan1.2 -DLAYOUT=1" */
} vk_kernel_source;
extern const vk_kernel_source vk_kernel_sources[];
extern const size_t vk_kernel_source_count;
/* Whether this build has that kernel: some need a glslc that knows an extension. */
bool vk_has_kernel(const char *name);

enum { VK_MAX_BINDS = 16, VK_MAX_SPECS = 20, VK_MAX_PUSH = 128 };

enum vk_access {
    VK_READ = 1,
    VK_WRITE = 2,
    VK_TEXEL = 4, /* a uniform texel buffer (format R32G32B32A32_UINT) instead of a storage buffer; read only */
};

typedef struct vk_bind {
    vk_range range; /* at most caps.max_storage_range bytes; none (an absent input): a small dummy buffer is bound */
    uint32_t access;
} vk_bind;

/* One dispatch. Descriptor set 0, binding i = bind[i]; push constants from `push`; specialization constant i = spec[i]
 * (shaders give local_size_x_id = 0 a local_size_x default as well). The pipeline is made at the first use of
 * (kernel, spec, subgroup, kinds of binds) and kept. */
typedef struct vk_dispatch {
    const char *kernel; /* name in the registry */
    const char *label;  /* row of the profile; NULL = kernel */
    uint32_t spec[VK_MAX_SPECS], specs;
    vk_bind bind[VK_MAX_BINDS];
    uint32_t binds;
    const void *push;
    uint32_t push_bytes; /* <= 128, a multiple of 4 */
    uint32_t groups[3];  /* any 0: the dispatch is skipped */
    uint32_t subgroup;   /* required subgroup size with full subgroups; 0 = as it comes */
    bool once;           /* will hardly come again the same: nothing else is encoded with it */
    double flops, bytes; /* estimated work, for the profile and for splitting submits */
} vk_dispatch;

/* ---- the stream ------------------------------------------------------------------------------------------------- */

/* Work goes to the device's one stream in recording order. Barriers are derived from the ranges that each command reads
 * and writes: commands that do not conflict run unordered, conflicting ones are ordered. Work is submitted by itself
 * once enough is estimated (DESIGN decision 11) and at vk_submit(). What is recorded is a list; where the same commands
 * come again, as they do from step to step of a model, the command buffers that they were encoded in are submitted
 * again. */
bool vk_run(vk_device *device, const vk_dispatch *dispatch);
/* dst and src of equal size (multiple of 4), not overlapping. */
bool vk_copy(vk_device *device, vk_range dst, vk_range src);
/* Sets every word of dst (a multiple of 4 bytes). */
bool vk_fill(vk_device *device, vk_range dst, uint32_t value);
/* Copies host bytes through the staging ring; `data` may be reused at once. Waits only if the ring is full of
 * unfinished work (counted as a host wait). */
bool vk_upload(vk_device *device, vk_range dst, const void *data, uint64_t bytes);

/* Submits what is recorded; returns the timeline value that completes it (also when nothing was recorded), 0 on
 * failure. */
uint64_t vk_submit(vk_device *device);
/* Timeline value that the next vk_submit() will signal: "done when this is reached" for what is being recorded. */
uint64_t vk_next_value(const vk_device *device);
/* Whether that value is reached; never blocks. */
bool vk_done(vk_device *device, uint64_t value);
/* Blocks until it is (counted as a host wait). Fails on device loss, naming the last kernels in flight. */
bool vk_wait(vk_device *device, uint64_t value);

enum { VK_READ_LATER_BYTES = 64 << 10 };
/* Records a copy of `src` (up to VK_READ_LATER_BYTES) into the readback ring and returns a ticket, 0 on failure. The
 * ring holds the last 64 tickets; an older one is overwritten. */
uint64_t vk_read_later(vk_device *device, vk_range src);
/* The bytes of a ticket if its copy has completed, else NULL; valid until 63 more tickets are taken. Never blocks. */
const void *vk_read_ready(vk_device *device, uint64_t ticket);
/* Reads any amount now: records, submits, waits (a host wait). */
bool vk_read(vk_device *device, vk_range src, void *data, uint64_t bytes);

/* A dry device records nothing and touches no device memory: the same calls only count bytes, for predicting a step's
 * peak. Rings of host memory are made as ever. */
bool vk_dry(vk_device *device, bool dry);
bool vk_is_dry(const vk_device *device);

/* ---- counters and profile --------------------------------------------------------------------------------------- */

typedef struct vk_counters {
    uint64_t dispatches, barriers, copies, submits, host_waits, pipelines;
    uint64_t encoded, reused; /* command buffers: made from recorded commands, submitted again */
} vk_counters;
vk_counters vk_counters_get(const vk_device *device);

/* With params.profile: waits for the device and prints a table to `out`: kernel label, calls, milliseconds, share,
 * GFLOP/s, GB/s, and below it the counters since the last reset. Without timestamps on the device says so. */
bool vk_profile_print(vk_device *device, FILE *out);
void vk_profile_reset(vk_device *device);
/* Device nanoseconds of the profiled dispatches with that label since the reset, and how many; for bench. NULL: of
 * everything, copies ("copy", "upload") and fills ("fill") too.
 * Waits for the device. */
bool vk_profile_get(vk_device *device, const char *label, double *ns, uint64_t *calls);

/* Every dispatch, copy and fill between these goes into the trace (base/trace.h) once it is done, at its place on the
 * host's clock: in full where the device has VK_EXT_calibrated_timestamps, else after waiting for the
 * device once, within the time a submit takes. Neither changes what runs in what order. A device without timestamps
 * gets a notice and no row. */
bool vk_trace_start(vk_device *device);
bool vk_trace_stop(vk_device *device);

#endif
