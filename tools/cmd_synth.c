#include <inttypes.h>
#include <stdio.h>

#include "multimodal/synth.h"
#include "tools/commands.h"
#include "tools/options.h"

int cmd_synth(int argc, char **argv)
{
    const char *folder = NULL;
    int64_t images = 4000, seed = 0;
    const cs_option options[] = {
        {"images", CS_OPT_INT, &images, 1, 1000000, "N",
         "pictures to train on (default 4000); a tenth comes on top to test on"},
        {"seed", CS_OPT_INT, &seed, 0, 1e15, "S", "other pictures for another number (default 0)"},
    };
    const cs_positional arguments[] = {
        {"DIR", CS_ONE, &folder, "folder to make: train.json, test.json, synth.json, images/"}};
    const cs_syntax syntax = {
        .name = "synth",
        .about = "Draws the demonstration data set: pictures of coloured shapes with questions and answers, in LLaVA's "
                 "format.",
        .options = options,
        .option_count = CS_COUNT(options),
        .positionals = arguments,
        .positional_count = CS_COUNT(arguments)};
    int status;
    if (!cs_parse(&syntax, argc, argv, &status))
        return status;
    if (!mm_synth_write(&(mm_synth_options){folder, (uint32_t)images, (uint64_t)seed}))
        return cs_failed();
    printf("%s: %" PRId64 " pictures to train on, %" PRIu32 " to test on\n", folder, images,
           mm_synth_test_images((uint32_t)images));
    return 0;
}
