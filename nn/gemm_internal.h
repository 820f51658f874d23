/* Between the matrix product (nn/gemm.c) and its variants (nn/gemm_variants.c). */
#ifndef NN_GEMM_INTERNAL_H
#define NN_GEMM_INTERNAL_H

#include "nn/gemm.h"

/* One way to make a product: a kernel with its tile. */
typedef struct nn_gemm_variant nn_gemm_variant;
struct nn_gemm_variant {
    const char *name, *kernel;
    bool texel;             /* A and B as texel buffers; the workgroup is one subgroup, WIDTH is `columns` of them */
    bool wide;              /* the kernel stores 64-bit words where it can */
    uint32_t height, width; /* of a workgroup's tile */
    uint32_t depth;         /* terms of a slice in shared memory */
    uint32_t rows, columns; /* of an invocation's part of the tile: gemm_tiled; its columns: gemm_shuffle */
    uint32_t invocations;   /* of a workgroup: gemm_coopmat, gemm_coopmat2 */
    uint32_t turns;         /* of loops per 64 terms, for nn_gemm_terms() */
    bool unproven;          /* has run on no device yet: only tuning may choose it, which compares results */
    bool (*suits)(const vk_caps *caps, const nn_gemm_variant *v, const nn_gemm *g); /* whether it can run */
    bool (*pays)(const vk_caps *caps, const nn_gemm_variant *v, const nn_gemm *g);  /* where it does; NULL: always */
    /* Sets the kernel's own specialization constants, and the subgroup size that it needs. */
    void (*specialize)(const vk_caps *caps, const nn_gemm_variant *v, const nn_gemm *g, vk_dispatch *d);
};

/* Specialization constants of all kernels, which mirror shaders/include/gemm_finish.glsl; their own lie before and
 * behind these. */
enum {
    NN_GEMM_SPEC_TYPES = 9,
    NN_GEMM_SPEC_OUTPUT,
    NN_GEMM_SPEC_ACTIVATION,
    NN_GEMM_SPEC_GATHER,
    NN_GEMM_SPEC_VECTOR,
    NN_GEMM_SPECS
};

/* For the table: the kernel for CPU drivers (nn/gemm_shuffle.c). */
enum { NN_GEMM_TALL = 32 }; /* rows of a tile of gemm_shuffle_tall */
bool nn_gemm_shuffle_suits(const vk_caps *caps, const nn_gemm_variant *v, const nn_gemm *g);
/* Twice as many rows of A share what is fetched of B: 4 to 16% faster where few rows are beyond an edge, NN has no long
 * sums and NT no rows of B of whole pages. */
bool nn_gemm_shuffle_tall_pays(const vk_caps *caps, const nn_gemm_variant *v, const nn_gemm *g);
void nn_gemm_shuffle_specialize(const vk_caps *caps, const nn_gemm_variant *v, const nn_gemm *g, vk_dispatch *d);

/* For the table: the kernels that share slices through shared memory (nn/gemm_tiles.c). */
bool nn_gemm_tiled_suits(const vk_caps *caps, const nn_gemm_variant *v, const nn_gemm *g);
void nn_gemm_tiled_specialize(const vk_caps *caps, const nn_gemm_variant *v, const nn_gemm *g, vk_dispatch *d);
bool nn_gemm_matrix_suits(const vk_caps *caps, const nn_gemm_variant *v, const nn_gemm *g);
void nn_gemm_matrix_specialize(const vk_caps *caps, const nn_gemm_variant *v, const nn_gemm *g, vk_dispatch *d);
bool nn_gemm_workgroup_suits(const vk_caps *caps, const nn_gemm_variant *v, const nn_gemm *g);
void nn_gemm_workgroup_specialize(const vk_caps *caps, const nn_gemm_variant *v, const nn_gemm *g, vk_dispatch *d);
bool nn_gemm_tiles_pay(const vk_caps *caps, const nn_gemm_variant *v, const nn_gemm *g);

/* Elements from the start of each operand to its last one; 0 where there is none. `a` (or `b`) that is gathered from
 * counts whole. */
typedef struct nn_gemm_extents {
    uint64_t a, b, c, bias, rows, offsets;
} nn_gemm_extents;
nn_gemm_extents nn_gemm_extents_of(const nn_gemm *g);
/* Whether the epilogue reads `other`. */
bool nn_gemm_reads_other(const nn_gemm *g);
/* Elements of `extra` beside so many of C. */
uint64_t nn_gemm_extra_elements(const nn_gemm *g, uint64_t elements);

/* Whether a workgroup of several tiles had best make whole rows of them: where a core's cache holds all of B that one
 * product of a group or entry reads, or half of it and each row can end in a narrow tile. */
bool nn_gemm_makes_rows(const vk_caps *caps, const nn_gemm_variant *v, const nn_gemm *g);

/* Whole texels for so many elements: what lies behind the last one belongs to the same allocation. */
uint64_t nn_texel_bytes(uint64_t elements, enum nn_dtype type);

/* Batch entries, at least 1; those summed into each C. */
uint64_t nn_gemm_entries(const nn_gemm *g);
uint32_t nn_gemm_segments(const nn_gemm *g);

/* The variant of that name; NULL for none. */
const nn_gemm_variant *nn_gemm_find(const char *name);
/* The one that runs everything everywhere. */
const nn_gemm_variant *nn_gemm_plainest(void);
/* What the table gives a device for this product. */
const nn_gemm_variant *nn_gemm_built_in(const vk_caps *caps, const nn_gemm *g);
/* The named variant; else the one that tuning found best, if it suits; else the table's. NULL with the error set. */
const nn_gemm_variant *nn_gemm_choose(vk_device *device, const nn_gemm *g);
/* Terms that one dispatch may sum up. */
uint32_t nn_gemm_terms(const vk_caps *caps, const nn_gemm *g, const nn_gemm_variant *v);
/* Records the sum over `terms` terms from `term` on. */
bool nn_gemm_record(vk_device *device, const nn_gemm *g, const nn_gemm_variant *v, uint32_t term, uint32_t terms);

#endif
