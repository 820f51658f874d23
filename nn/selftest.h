/* Walks the operator table on a device: every operator, forward and backward, against its double-precision reference.
 */
#ifndef NN_SELFTEST_H
#define NN_SELFTEST_H

#include <stdio.h>

#include "nn/nn.h"

/* Relative Frobenius errors allowed against the reference in double: of f32 arithmetic. */
#define NN_FORWARD_TOLERANCE 1e-5
#define NN_BACKWARD_TOLERANCE 1e-4
/* Where a case has 16-bit tensors: roundings to their type that are allowed on top. */
#define NN_FORWARD_ROUNDINGS 1
#define NN_BACKWARD_ROUNDINGS 2

typedef struct nn_selftest_result {
    int passed, failed;
} nn_selftest_result;

typedef struct nn_selftest_params {
    const char *op;         /* of this operator only; NULL: of all */
    bool f32_only;          /* not in 16-bit types */
    uint32_t shard, shards; /* with N > 0 shards, every N-th case from number `shard` < N on */
} nn_selftest_params;

/* Runs the operators' cases (not the benchmark sizes) in every type; then, for all operators, finite differences on a
 * tape of several. A line a case goes to `out`. Returns false only where it could not run (unknown name, out of
 * memory); differences are counted in `result`. */
bool nn_selftest(vk_device *device, const nn_selftest_params *p, FILE *out, nn_selftest_result *result);

/* The last part of it: gradients of a small network on the tape against differences of its loss, all on the device. */
bool nn_selftest_tape(vk_device *device, FILE *out, nn_selftest_result *result);

/* Input values of a case, as floats or int32 in `host` (nn_count elements of 4 bytes) and the same in `values`. Input
 * `i` is drawn from (operator, case, i), so every device sees the same. */
void nn_case_fill(const nn_op *op, const nn_case *c, int i, double *const *values, void *host);

#endif
