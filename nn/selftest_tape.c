/* Finite differences on a tape of several operators, run on the device. */
#include <math.h>
#include <stdlib.h>

#include "base/memory.h"
#include "base/random.h"
#include "nn/ops.h"
#include "nn/selftest.h"

enum { TAPE_ROWS = 6, TAPE_WIDTH = 8, TAPE_CLASSES = 5 };

/* A small network through linear, norm, activation, residual and cross-entropy, with the hidden part recomputed. */
static nn_tensor *small_network(nn_tape *tape, nn_params *set, const float *x, const int32_t *labels)
{
    nn_tensor *p[6];
    for (int i = 0; i < 6; i++)
        p[i] = &nn_params_at(set, (size_t)i)->tensor;
    nn_tensor *in = nn_input(tape, NN_F32, 2, (int64_t[]){TAPE_ROWS, TAPE_WIDTH}, x);
    nn_recompute_begin(tape);
    nn_tensor *h = nn_layer_norm(tape, in, p[0], p[1], 1e-5f);
    h = nn_activate(tape, nn_linear(tape, h, p[2], p[3]), NN_GELU_ERF);
    h = nn_add(tape, in, nn_linear(tape, h, p[4], NULL));
    nn_recompute_end(tape);
    nn_tensor *logits = nn_linear(tape, h, p[5], NULL);
    return nn_cross_entropy(tape, logits, nn_input(tape, NN_I32, 1, (int64_t[]){TAPE_ROWS}, labels), 1.0f / TAPE_ROWS,
                            NULL);
}

static bool add_network_params(nn_params *set)
{
    const int64_t w = TAPE_WIDTH, h = 2 * TAPE_WIDTH;
    return nn_param_add(set, "norm.weight", 1, &w, NN_INIT_ONE, 0, false) &&
           nn_param_add(set, "norm.bias", 1, &w, NN_INIT_ZERO, 0, false) &&
           nn_param_add(set, "up.weight", 2, (int64_t[]){h, w}, NN_INIT_NORMAL, 0.5f, true) &&
           nn_param_add(set, "up.bias", 1, &h, NN_INIT_NORMAL, 0.5f, false) &&
           nn_param_add(set, "down.weight", 2, (int64_t[]){w, h}, NN_INIT_NORMAL, 0.5f, true) &&
           nn_param_add(set, "head.weight", 2, (int64_t[]){TAPE_CLASSES, w}, NN_INIT_NORMAL, 0.5f, true) &&
           nn_params_allocate(set, true, 5);
}

static bool network_loss(nn_tape *tape, nn_params *set, const float *x, const int32_t *labels, bool backward,
                         float *loss)
{
    nn_tape_reset(tape);
    nn_tensor *l = nn_keep(small_network(tape, set, x, labels));
    nn_root root = {l, 1, NULL};
    return nn_tape_run(tape, backward ? &root : NULL, backward) && nn_read(tape, l, loss);
}

/* Moves parameter `p` by `step` times its gradient direction g/|g| and returns the slope by central differences next to
 * |g|: the two agree if the gradient is right. f32 losses near 1 carry about 1e-7; over a step of 0.02 that is 1e-5 of
 * slope, and the cubic term is of order step^2. */
static bool slope_error(nn_tape *tape, nn_params *set, nn_param *p, const float *x, const int32_t *labels,
                        double *error)
{
    size_t n = (size_t)nn_count(&p->tensor);
    float *value = cs_alloc(n, 4, "a test"), *grad = cs_alloc(n, 4, "a test"), *moved = cs_alloc(n, 4, "a test");
    bool ok = value && grad && moved && nn_param_read(set, p, NN_VALUE, value) &&
              nn_param_read(set, p, NN_GRADIENT, grad);
    double norm = 0, loss[2] = {0};
    for (size_t i = 0; ok && i < n; i++)
        norm += (double)grad[i] * grad[i];
    norm = sqrt(norm);
    for (int side = 0; ok && side < 2; side++) {
        for (size_t i = 0; i < n; i++)
            moved[i] = (float)(value[i] + (side ? -0.02 : 0.02) * grad[i] / norm);
        float l = 0;
        ok = nn_param_write(set, p, NN_VALUE, moved) && network_loss(tape, set, x, labels, false, &l);
        loss[side] = l;
    }
    ok = ok && nn_param_write(set, p, NN_VALUE, value);
    *error = fabs((loss[0] - loss[1]) / 0.04 - norm) / norm;
    free(value);
    free(grad);
    free(moved);
    return ok;
}

bool nn_selftest_tape(vk_device *device, FILE *out, nn_selftest_result *result)
{
    float x[TAPE_ROWS * TAPE_WIDTH];
    int32_t labels[TAPE_ROWS];
    cs_random r = {.seed = 3, .stream = cs_random_stream("tape differences")};
    for (int i = 0; i < TAPE_ROWS * TAPE_WIDTH; i++)
        x[i] = cs_random_normal(&r);
    for (int i = 0; i < TAPE_ROWS; i++)
        labels[i] = (int32_t)cs_random_below(&r, TAPE_CLASSES);
    nn_params *set = nn_params_new(device);
    nn_tape *tape = nn_tape_new(device);
    float loss;
    bool ok = set && tape && add_network_params(set) && nn_params_zero_grad(set) &&
              network_loss(tape, set, x, labels, true, &loss);
    for (size_t i = 0; ok && i < nn_params_count(set); i++) {
        nn_param *p = nn_params_at(set, i);
        double error = 0;
        ok = slope_error(tape, set, p, x, labels, &error);
        bool pass = error <= 5e-3;
        if (ok) {
            fprintf(out, "%s %-18s %-28s slope %.1e\n", pass ? "pass" : "FAIL", "tape", p->name, error);
            pass ? result->passed++ : result->failed++;
        }
    }
    nn_tape_free(&tape);
    nn_params_free(&set);
    return ok;
}
