/* Launching kernels over rows (shaders/include/rows.glsl): how work is cut into slices that can be bound and spread
 * over invocations. For operators and the optimizer. */
#ifndef NN_LAUNCH_H
#define NN_LAUNCH_H

#include "nn/nn.h"

enum { NN_MAX_ROW_SPECS = 4, NN_MAX_ROW_BINDS = 8, NN_MAX_ROW_PUSH = 64 };

/* Columns that an invocation handles at once (shaders/include/unit.glsl). */
enum nn_width { NN_WIDTH_1 = 1, NN_WIDTH_4 = 4, NN_WIDTH_8 = 8 };

/* A buffer with `stride` bytes per row, sliced with the rows; stride 0: whole in every slice. */
typedef struct nn_row_bind {
    vk_bind bind;
    uint64_t stride;
    bool values; /* a VALUES_IN of the shader: a texel buffer where the width is 8 */
    enum nn_dtype type; /* of a VALUES_IN or VALUES_OUT */
} nn_row_bind;

/* Binds for a launch over rows of `cols` elements of a tensor of any float type; cols 0: whole in every slice. NULL
 * tensors give none. */
nn_row_bind nn_row_in(const nn_tensor *t, int64_t cols);   /* its values, a VALUES_IN */
nn_row_bind nn_row_out(const nn_tensor *t, int64_t cols);  /* its values, a VALUES_OUT */
nn_row_bind nn_row_dout(const nn_tensor *t, int64_t cols); /* its gradient, a VALUES_IN */
/* Its gradient, a VALUES_OUT or VALUES_SUM, bound as `din` (nn_din_bind) says. */
nn_row_bind nn_row_din(vk_bind din, const nn_tensor *t, int64_t cols);
/* The `old_slot` of a VALUES_SUM: what is to be added to, none where nothing is. */
nn_row_bind nn_row_old(nn_row_bind sum, bool accumulate);

typedef struct nn_launch {
    const char *kernel; /* the name of its 8-wide build ends in _wide */
    int64_t rows, cols;
    enum nn_width width;
    bool turns;      /* the kernel lets an invocation take TURNS units or rows */
    bool reduce;     /* some invocations per row; else one per unit */
    uint32_t lanes;  /* where `reduce`: how many, as the functions below say; 0 = as suits */
    int64_t per_row; /* invocations per row where not `reduce`; 0 = one per unit */
    nn_row_bind bind[NN_MAX_ROW_BINDS];
    uint32_t spec[NN_MAX_ROW_SPECS]; /* specialization constants 3, 4, ... */
    const void *push;                /* what follows rows, units, first_row */
    uint32_t push_bytes;
    bool once; /* vk_dispatch.once */
    double flops;
} nn_launch;

/* The widest unit that divides `cols`: 8 only on CPU drivers that have 64-bit integers, and only for kernels with a
 * _wide build. */
enum nn_width nn_row_width(vk_device *device, int64_t cols);
/* For kernels without one. */
enum nn_width nn_narrow_width(int64_t cols);

/* Invocations for each of `rows` rows in a kernel that holds a row in registers: few units for each of them, and on a
 * CPU driver a subgroup for a row, whose neighbours' sums cost next to nothing. */
uint32_t nn_holding_lanes(vk_device *device, int64_t rows, int64_t units);
/* In a kernel that reads and writes rows once: on a CPU driver a subgroup for a long row, so that it streams; else
 * 0. */
uint32_t nn_streaming_lanes(vk_device *device, int64_t units);

/* Records the kernel, slice by slice. Fails where a row does not fit a storage buffer of the device. */
bool nn_launch_rows(vk_device *device, const nn_launch *launch);

/* Rows of `stride` bytes that one bind may hold, in a step that keeps every slice aligned: `rows` where all fit; 0
 * with the error set where none do. nn_slice_bind() is the bind of `count` of them. */
int64_t nn_slice_rows(vk_device *device, const char *what, int64_t rows, uint64_t stride);
vk_bind nn_slice_bind(vk_bind bind, int64_t first, int64_t count, uint64_t stride);

/* Elementwise kernels see `count` elements as rows of one unit. */
typedef struct nn_flat {
    int64_t rows, cols;
    enum nn_width width;
    uint64_t stride;
} nn_flat;
nn_flat nn_flat_shape(vk_device *device, int64_t count);

/* to = from in the type of `to` (or added to what is there), `count` elements; strides are set here. */
bool nn_cast_run(vk_device *device, nn_row_bind from, nn_row_bind to, int64_t count, bool accumulate);

/* `count` floats times the one at `factor`, in place. */
bool nn_scale_run(vk_device *device, vk_range values, vk_range factor, int64_t count);

/* to[i] = from[index[i]], rows of `cols` floats of these types; `sources` rows in `from`. Flags as in
 * gather_rows.comp. */
enum {
    NN_GATHER_ACCUMULATE = 1,   /* add to what is there */
    NN_GATHER_ZERO_MISSING = 2, /* rows with a negative index become 0; else they are left alone */
    NN_GATHER_COMPLEMENT = 4,   /* the index counts downwards from -1; others are left alone */
};
typedef struct nn_gather_launch {
    vk_bind index, from, to;
    enum nn_dtype from_type, to_type;
    int64_t sources, rows, cols;
    uint32_t flags;
} nn_gather_launch;
bool nn_gather(vk_device *device, const nn_gather_launch *g);

/* Sum, or sum of squares, of `count` floats times `scale` into the one float of `result`, in fixed order: partial sums
 * of chunks, then their sum. Scratch: nn_reduce_partials(count) floats. */
int64_t nn_reduce_partials(int64_t count);
bool nn_reduce_range(vk_device *device, vk_bind x, int64_t count, bool square, float scale, vk_bind partials,
                     vk_bind result);
/* The first pass alone: nn_reduce_partials(count) sums into `partials`. */
bool nn_reduce_chunks(vk_device *device, vk_bind x, int64_t count, bool square, float scale, vk_bind partials);

#endif
