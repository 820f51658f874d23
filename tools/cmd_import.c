#include <stdio.h>
#include <string.h>

#include "base/nearest.h"
#include "multimodal/import_easyvqa.h"
#include "multimodal/import_llama2c.h"
#include "tools/commands.h"
#include "tools/options.h"

/* Reads SRC, writes DST and says on stdout what came of it; false with the error set. */
typedef bool import_fn(const char *source, const char *target);

static bool import_easyvqa(const char *source, const char *target)
{
    mm_import_counts counts[2];
    if (!mm_import_easyvqa(source, target, counts))
        return false;
    printf("%s/train.json: %zu pictures, %zu questions\n", target, counts[0].samples, counts[0].turns);
    printf("%s/test.json: %zu pictures, %zu questions\n", target, counts[1].samples, counts[1].turns);
    return true;
}

static bool import_llama2c(const char *source, const char *target)
{
    vk_device *device = vk_open(&(vk_params){0});
    mm_llama2c_shape s;
    bool ok = device && mm_import_llama2c(source, target, device, &s);
    if (ok)
        printf("%s: %d layers of width %d, %d pieces, context %d\n", target, s.layers, s.width, s.vocabulary,
               s.context);
    vk_close(&device);
    return ok;
}

static const struct {
    const char *name;
    import_fn *run;
} kinds[] = {
    {"easy-vqa", import_easyvqa},
    {"llama2c", import_llama2c},
};

int cmd_import(int argc, char **argv)
{
    const char *kind, *source, *target;
    const cs_positional positionals[] = {
        {"KIND", CS_ONE, &kind, "easy-vqa: the folder of github.com/vzhou842/easy-VQA with train/ and test/; "
                         "llama2c: weights of github.com/karpathy/llama2.c, their tokenizer tok*.bin beside them"},
        {"SRC", CS_ONE, &source, "what to read"},
        {"DST", CS_ONE, &target, "folder to make"},
    };
    const cs_syntax syntax = {
        "import", "Turns public data or models into what csmoe reads.", NULL, 0, positionals, CS_COUNT(positionals)};
    int status;
    if (!cs_parse(&syntax, argc, argv, &status))
        return status;
    for (size_t i = 0; i < CS_COUNT(kinds); i++)
        if (!strcmp(kinds[i].name, kind))
            return kinds[i].run(source, target) ? 0 : cs_failed();
    const char *near = cs_nearest(kind, &kinds[0].name, CS_COUNT(kinds), sizeof kinds[0]);
    return cs_wrong_usage("import", "unknown KIND '%s'; %s '%s'", kind, near ? "did you mean" : "known is",
                          near ? near : kinds[0].name);
}
