/* What csmoe bench times: the device's own peaks, plain matrix products, operators. nn/bench_moe.h has the layer. */
#ifndef NN_BENCH_H
#define NN_BENCH_H

#include "nn/gemm.h"
#include "nn/nn.h"

/* How often something is timed. */
typedef struct nn_bench {
    vk_device *device;
    int fewest, most; /* runs, after a first one that is not counted; most <= NN_BENCH_MOST */
    double enough;    /* nanoseconds of measured time after which no further run starts */
} nn_bench;

enum { NN_BENCH_MOST = 50, NN_BENCH_GROUPS = 64, NN_BENCH_VARIANTS = 16, NN_BENCH_PRODUCTS = 10 };
/* quick: to see that everything runs, or for a first impression. */
nn_bench nn_bench_on(vk_device *device, bool quick);

/* Time of one thing over several runs. */
typedef struct nn_timing {
    int runs;            /* 0: not measured */
    double median, best; /* nanoseconds */
    double deviation;    /* median distance from the median */
    double flops, bytes; /* arithmetic; what must be read and written at least */
} nn_timing;

/* One run: records work. It may be submitted, need not be waited for. */
typedef bool nn_bench_fn(void *with);
/* Device time of all that run() records but uploads, on a device opened with params.profile. Sets all but flops and
 * bytes. */
bool nn_bench_device_time(const nn_bench *b, nn_bench_fn *run, void *with, nn_timing *t);
/* The statistics of `runs` measured times; reorders and overwrites them. */
void nn_summarise(nn_timing *t, double *ns, int runs);
bool nn_bench_enough(const nn_bench *b, int runs, double sum);
/* Device time of one run. */
bool nn_bench_once(const nn_bench *b, nn_bench_fn *run, void *with, double *ns);

/* Standard normal values. f32, f16 and bf16. */
bool nn_bench_fill(vk_device *device, vk_range range, enum nn_dtype type, uint64_t elements, uint64_t seed);

/* ---- peaks (nn/bench_peak.c) ------------------------------------------------------------------------------------ */

/* What kernels made for nothing else reach; the roofs that everything else is compared with. */
enum nn_peak {
    NN_PEAK_F32,   /* f32 multiply-adds; a multiply-add is 2 FLOP */
    NN_PEAK_F16,   /* f16 multiply-adds, in pairs */
    NN_PEAK_MATRIX_F16,  /* cooperative matrices of f16, f32 sums */
    NN_PEAK_MATRIX_BF16, /* of bf16 */
    NN_PEAK_READ,  /* memory larger than caches, as far as the device binds that much */
    NN_PEAK_WRITE,
    NN_PEAK_COPY,  /* bytes read plus bytes written */
    NN_PEAKS
};
extern const char *const nn_peak_names[NN_PEAKS];
/* The fastest of the ways known: t->flops or t->bytes over t->best is the peak. t->runs = 0 where the device lacks the
 * feature. */
bool nn_bench_peak(const nn_bench *b, enum nn_peak peak, nn_timing *t);

/* ---- matrix products (nn/bench_gemm.c) -------------------------------------------------------------------------- */

typedef struct nn_bench_product {
    enum nn_gemm_layout layout;
    enum nn_dtype type; /* of the operands; the result is f32 */
    uint32_t m, n, k;
    uint32_t groups; /* 0: plain; up to NN_BENCH_GROUPS: grouped, with even shares of m (NT, NN) or of k (TN) */
    uint32_t batch;  /* 0: one; else so many products of m x n x k, each with its own matrices; not with groups */
} nn_bench_product;

/* Up to NN_BENCH_PRODUCTS products, all of one type, over the same normal random values. They take turns, so that what
 * disturbs the machine disturbs all. */
bool nn_bench_gemm(const nn_bench *b, const nn_bench_product *shapes, int count, nn_timing *t);

/* The times of every variant on a product, fastest first. A variant whose result is not that of gemm_tiled_32 is left
 * out, with a notice. */
typedef struct nn_bench_contest {
    nn_bench_product product;
    struct {
        const char *variant;
        double ns; /* median */
    } times[NN_BENCH_VARIANTS];
    int count;
    const char *taken; /* the variant that the product gets by itself */
} nn_bench_contest;
bool nn_bench_variants(const nn_bench *b, const nn_bench_product *p, nn_bench_contest *contest);

/* ---- operators (nn/bench_op.c) ---------------------------------------------------------------------------------- */

/* One case of an operator. `backward` (runs = 0 where it has none) is what the backward pass adds to a forward one, its
 * arithmetic counted as twice the forward's, as usual; on a busy machine the difference may come out as 0 or less. */
bool nn_bench_case(const nn_bench *b, const nn_op *op, const nn_case *c, nn_timing *forward, nn_timing *backward);

#endif
