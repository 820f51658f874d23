#include "multimodal/evaluate.h"

#include <inttypes.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "multimodal/loader.h"

/* An answer that max_tokens has cut lacks its end, so that nobody can say whether it would be given word for word. */
static void count_exact(const mm_batch *b, const int32_t *best, int32_t end, mm_evaluation *result)
{
    for (int i = 0; i < b->labels;) {
        int turn = b->label_turn[i];
        bool right = true;
        for (; i < b->labels && b->label_turn[i] == turn; i++)
            right &= best[i] == b->label[i];
        result->exact += right && b->label[i - 1] == end;
        result->answers++;
    }
}

static bool evaluate_batch(mm_loaded *l, nn_tape *tape, const mm_batch *b, bool blank, mm_evaluation *result)
{
    nn_tensor *loss, *best;
    float sum;
    int32_t *tokens = NULL;
    const mm_forward how = {.label_weight = 1, .blank = blank};
    nn_tape_reset(tape);
    bool ok = mm_model_forward(l->model, tape, b, &how, &loss, &best) && nn_tape_run(tape, NULL, 0) &&
              (tokens = cs_alloc((size_t)nn_count(best), sizeof *tokens, "the evaluation")) &&
              nn_read(tape, loss, &sum) && nn_read(tape, best, tokens);
    if (ok) {
        result->loss += sum;
        result->labels += (uint64_t)b->labels;
        result->samples += (uint64_t)b->samples;
        count_exact(b, tokens, mm_format_end(&l->format), result);
    }
    free(tokens);
    return ok;
}

static bool evaluate_all(mm_loaded *l, mm_loader *loader, uint64_t batches, const mm_evaluate_params *p,
                         mm_evaluation *result)
{
    nn_tape *tape = nn_tape_new(l->model->device);
    bool ok = tape;
    for (uint64_t i = 0; ok; i++) {
        mm_batch *b;
        if (!(ok = mm_loader_next(loader, &b)) || !b)
            break;
        ok = evaluate_batch(l, tape, b, p->blank, result);
        mm_batch_free(b);
        free(b);
        if (ok && cs_progress_visible()) {
            char line[120];
            snprintf(line, sizeof line, "%" PRIu64 "/%" PRIu64 " batches  exact match %.2f%%", i + 1, batches,
                     100.0 * (double)result->exact / (double)(result->answers ? result->answers : 1));
            cs_progress(line);
        }
    }
    cs_progress(NULL);
    nn_tape_free(&tape);
    return ok;
}

bool mm_evaluate(mm_loaded *l, const mm_evaluate_params *p, mm_evaluation *result)
{
    *result = (mm_evaluation){0};
    double begin = cs_seconds();
    const mm_dataset_params dataset = {.image_root = p->image_root, .skip_bad = p->skip_bad, .decode = p->skip_bad,
                                       .limit = (size_t)p->limit};
    mm_dataset *data = mm_dataset_open(p->data, &dataset);
    if (!data)
        return false;
    const mm_loader_params params = {
        .format = l->format, .batch = p->batch, .epochs = 1, .group_by_length = true, .prefetch = 2};
    mm_loader *loader = mm_loader_open(data, &params, 0);
    bool ok = loader && evaluate_all(l, loader, mm_loader_steps_per_epoch(loader), p, result);
    if (ok && !result->labels)
        ok = cs_fail("%s: no answers to evaluate", p->data);
    if (ok)
        result->loss /= (double)result->labels;
    result->bad = data->bad;
    result->seconds = cs_seconds() - begin;
    mm_loader_close(loader);
    mm_dataset_close(data);
    return ok;
}
