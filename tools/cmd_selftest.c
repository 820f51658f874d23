#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "nn/selftest.h"
#include "tools/commands.h"
#include "tools/options.h"

/* Sets the shard by "I/N", I from 1 to N; NULL leaves it out. */
static bool parse_shard(const char *text, nn_selftest_params *p)
{
    enum { MOST = 1000 };
    unsigned shard, shards;
    int end = 0;
    if (!text)
        return true;
    if (text[strspn(text, "0123456789/")] || sscanf(text, "%4u/%4u%n", &shard, &shards, &end) != 2 || text[end] ||
        shard < 1 || shard > shards || shards > MOST)
        return cs_fail("--shard %s: must be I/N with 1 <= I <= N <= %d, such as 1/2", text, MOST);
    p->shard = shard - 1;
    p->shards = shards;
    return true;
}

int cmd_selftest(int argc, char **argv)
{
    const char *device = NULL, *shard = NULL;
    nn_selftest_params params = {0};
    const cs_option options[] = {
        CS_OPT_DEVICE(&device),
        {"op", CS_OPT_STRING, &params.op, .arg = "NAME", .doc = "one operator only"},
        {"f32", CS_OPT_FLAG, &params.f32_only, .doc = "leave the 16-bit types out"},
        {"shard", CS_OPT_STRING, &shard, .arg = "I/N",
         .doc = "every N-th case only, from the I-th on: for runs side by side"},
    };
    const cs_syntax syntax = {
        "selftest", "Runs every operator, forward and backward, against its reference in double on this device.",
        options,    CS_COUNT(options),
        NULL,       0};
    int status;
    if (!cs_parse(&syntax, argc, argv, &status))
        return status;
    if (!parse_shard(shard, &params))
        return cs_failed();
    vk_device *dev = vk_open(&(vk_params){.selector = device});
    if (!dev)
        return cs_failed();
    printf("device %s, %s %s\nevery output within %.0e and every gradient within %.0e of the double reference "
           "(relative, Frobenius)\n",
           vk_device_caps(dev)->name, vk_device_caps(dev)->driver, vk_device_caps(dev)->driver_info,
           NN_FORWARD_TOLERANCE, NN_BACKWARD_TOLERANCE);
    nn_selftest_result result;
    bool ok = nn_selftest(dev, &params, stdout, &result);
    if (ok)
        printf("%d passed, %d failed\n", result.passed, result.failed);
    vk_close(&dev);
    return ok ? result.failed != 0 : cs_failed();
}
