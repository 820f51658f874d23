#include <stdio.h>

#include "nn/selftest.h"
#include "tools/commands.h"
#include "tools/options.h"

int cmd_selftest(int argc, char **argv)
{
    const char *device = NULL, *op = NULL;
    bool f32_only = false;
    const cs_option options[] = {
        {"device", CS_OPT_STRING, &device, .arg = "N", .doc = "device: index, part of the name or UUID"},
        {"op", CS_OPT_STRING, &op, .arg = "NAME", .doc = "one operator only"},
        {"f32", CS_OPT_FLAG, &f32_only, .doc = "leave the 16-bit types out"},
    };
    const cs_syntax syntax = {
        "selftest", "Runs every operator, forward and backward, against its reference in double on this device.",
        options,    CS_COUNT(options),
        NULL,       0};
    int status;
    if (!cs_parse(&syntax, argc, argv, &status))
        return status;
    vk_device *dev = vk_open(&(vk_params){.selector = device});
    if (!dev)
        return cs_failed();
    printf("device %s, %s %s\nevery output within %.0e and every gradient within %.0e of the double reference "
           "(relative, Frobenius)\n",
           vk_device_caps(dev)->name, vk_device_caps(dev)->driver, vk_device_caps(dev)->driver_info,
           NN_FORWARD_TOLERANCE, NN_BACKWARD_TOLERANCE);
    nn_selftest_result result;
    bool ok = nn_selftest(dev, op, f32_only, stdout, &result);
    if (ok)
        printf("%d passed, %d failed\n", result.passed, result.failed);
    vk_close(&dev);
    return ok ? result.failed != 0 : cs_failed();
}
