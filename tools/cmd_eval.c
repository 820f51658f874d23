#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#include "base/error.h"
#include "multimodal/evaluate.h"
#include "tools/commands.h"
#include "tools/options.h"

static void print_json(const mm_evaluation *r)
{
    char loss[64] = "null"; /* JSON has no NaN */
    if (isfinite(r->loss))
        snprintf(loss, sizeof loss, "%.6f", r->loss);
    printf("{\"samples\": %" PRIu64 ", \"answers\": %" PRIu64 ", \"exact\": %" PRIu64
           ", \"exact_match\": %.6f, \"loss\": %s, \"labels\": %" PRIu64 ", \"skipped\": %zu, \"seconds\": %.2f}\n",
           r->samples, r->answers, r->exact, (double)r->exact / (double)r->answers, loss, r->labels, r->bad,
           r->seconds);
}

static void print_text(const mm_evaluation *r)
{
    printf("exact match %.2f%% (%" PRIu64 " of %" PRIu64 " answers), loss %.4f nats per token, %" PRIu64
           " samples in %.1f s\n",
           100.0 * (double)r->exact / (double)r->answers, r->exact, r->answers, r->loss, r->samples, r->seconds);
    if (r->bad)
        printf("%zu unreadable samples skipped\n", r->bad);
}

int cmd_eval(int argc, char **argv)
{
    const char *run = NULL, *device = NULL;
    mm_evaluate_params p = {0};
    int64_t batch = 32;
    bool json = false;
    const cs_option options[] = {
        {"data", CS_OPT_STRING, &p.data, .arg = "FILE", .doc = "data in LLaVA's format, JSON or JSON lines"},
        {"image-root", CS_OPT_STRING, &p.image_root, .arg = "DIR",
         .doc = "folder that pictures' paths start from (default: the data file's)"},
        {"batch", CS_OPT_INT, &batch, 1, 4096, "N", "samples at a time (default 32)"},
        {"limit", CS_OPT_INT, &p.limit, 0, 1e15, "N", "only the first N samples of the file (default 0: all)"},
        {"blank", CS_OPT_FLAG, &p.blank,
         .doc = "replace pictures by their mean colour: what the questions alone give away"},
        {"skip-bad", CS_OPT_FLAG, &p.skip_bad, .doc = "skip and count unreadable samples"},
        {"json", CS_OPT_FLAG, &json, .doc = "print one JSON object"},
        CS_OPT_DEVICE(&device),
    };
    const cs_positional positionals[] = {{"RUN", CS_ONE, &run, "run folder or checkpoint"}};
    const cs_syntax syntax = {"eval",      "Measures loss and exact-match accuracy of a trained model.",
                              options,     CS_COUNT(options),
                              positionals, CS_COUNT(positionals)};
    int status;
    if (!cs_parse(&syntax, argc, argv, &status))
        return status;
    if (!p.data)
        return cs_wrong_usage("eval", "--data FILE is missing");
    p.batch = (int)batch;
    vk_device *dev = vk_open(&(vk_params){.selector = device});
    if (!dev)
        return cs_failed();
    mm_loaded loaded;
    mm_evaluation result;
    bool ok = mm_load(&loaded, run, dev, NULL, 0) && mm_evaluate(&loaded, &p, &result);
    if (ok) {
        json ? print_json(&result) : print_text(&result);
        ok = isfinite(result.loss) || cs_fail("%s: the loss is not finite: the model is of no use", run);
    }
    mm_unload(&loaded);
    vk_close(&dev);
    return ok ? 0 : cs_failed();
}
