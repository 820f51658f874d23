#include <stdio.h>

#include "multimodal/dataset.h"
#include "tools/commands.h"
#include "tools/options.h"

static void print_fault(void *user, const char *message)
{
    (void)user;
    puts(message);
}

int cmd_check_data(int argc, char **argv)
{
    const char *file, *root = NULL;
    bool no_decode = false;
    const cs_option options[] = {
        {"image-root", CS_OPT_STRING, &root, .arg = "DIR",
         .doc = "where pictures are looked up (default: the file's folder)"},
        {"no-decode", CS_OPT_FLAG, &no_decode, .doc = "only look whether the pictures are there"},
    };
    const cs_positional positionals[] = {{"FILE", CS_ONE, &file, "LLaVA-format JSON array or JSON lines"}};
    const cs_syntax syntax = {
        "check-data",
        "Reports every fault of a data file with its place, a line each: syntax, missing and mistyped "
        "fields, the order of turns, <image> marks, pictures. Exits with 1 if there are any.",
        options,
        CS_COUNT(options),
        positionals,
        CS_COUNT(positionals)};
    int status;
    if (!cs_parse(&syntax, argc, argv, &status))
        return status;
    mm_dataset_params params = {.image_root = root, .decode = !no_decode, .fault = print_fault};
    mm_dataset *d = mm_dataset_open(file, &params);
    if (!d)
        return cs_failed();
    printf("%s: %zu good samples with %zu turns and %zu pictures; %zu bad samples, %zu faults\n", file, d->count,
           d->turns, d->image_count, d->bad, d->faults);
    status = d->faults || !d->count;
    mm_dataset_close(d);
    return status;
}
