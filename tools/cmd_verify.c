#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "nn/verify.h"
#include "tools/commands.h"
#include "tools/options.h"

typedef struct tally {
    vk_device *device;
    int passed, failed, unsupported;
} tally;

static void report(tally *t, const char *name, const nn_golden *g, const nn_verify_result *r)
{
    r->passed ? t->passed++ : t->failed++;
    printf("%s %-70s %s: %.1e of %.1e allowed (%d tensors%s)\n", r->passed ? "pass" : "FAIL", name, r->worst, r->error,
           r->limit, r->tensors, g->listed ? "" : "; not in cases.json: only the 5e-6 rule");
}

/* A line for the file; a fault of the file counts as a failure and the rest goes on. */
static void verify_file(tally *t, const char *path, const nn_golden_cases *cases)
{
    const char *name = cs_base_name(path);
    nn_golden golden;
    nn_verify_result result;
    nn_safetensors *st = nn_safetensors_open(path);
    if (!st || !nn_golden_describe(cases, st, &golden)) {
        printf("FAIL %s\n", cs_error());
        t->failed++;
    } else if (golden.kind == NN_GOLDEN_UNSUPPORTED) {
        printf("unsupported %s: %s\n", name, golden.reason);
        t->unsupported++;
    } else if (!nn_verify(t->device, st, &golden, &result)) {
        printf("FAIL %-70s %s\n", name, cs_error());
        t->failed++;
    } else {
        report(t, name, &golden, &result);
    }
    fflush(stdout);
    nn_safetensors_close(&st);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The folder's *.safetensors, sorted; free() each and the list. */
static bool list_folder(const char *folder, char ***names, size_t *count)
{
    *names = NULL;
    *count = 0;
    size_t capacity = 0;
    DIR *d = opendir(folder);
    if (!d)
        return cs_fail("%s: cannot open the folder: %s", folder, strerror(errno));
    bool ok = true;
    for (struct dirent *e; ok && (e = readdir(d));) {
        const char *dot = strrchr(e->d_name, '.');
        if (!dot || strcmp(dot, ".safetensors"))
            continue;
        ok = cs_grow(names, &capacity, *count + 1, sizeof **names, "file names") &&
             ((*names)[*count] = cs_strdup(e->d_name));
        *count += ok;
    }
    closedir(d);
    if (*count)
        qsort(*names, *count, sizeof **names, by_name);
    return ok && (*count || cs_fail("%s: no *.safetensors in this folder", folder));
}

static bool verify_folder(tally *t, const char *folder)
{
    nn_golden_cases *cases = NULL;
    char **names = NULL;
    size_t count = 0;
    bool ok = nn_golden_cases_read(folder, &cases) && list_folder(folder, &names, &count);
    if (ok && !cases)
        cs_log(CS_LOG_WARN, "%s: no cases.json: modes are the files' own, coefficients the authors'", folder);
    for (size_t i = 0; i < count; i++) {
        char *path = ok ? cs_join(folder, names[i]) : NULL;
        ok = path;
        if (path)
            verify_file(t, path, cases);
        free(path);
        free(names[i]);
    }
    free(names);
    nn_golden_cases_free(&cases);
    return ok;
}

static bool verify_path(tally *t, const char *path)
{
    if (cs_is_folder(path))
        return verify_folder(t, path);
    char *folder = cs_parent(path);
    nn_golden_cases *cases = NULL;
    bool ok = folder && nn_golden_cases_read(folder, &cases);
    if (ok)
        verify_file(t, path, cases);
    nn_golden_cases_free(&cases);
    free(folder);
    return ok;
}

int cmd_verify(int argc, char **argv)
{
    const char *device = NULL;
    cs_strings paths = {0};
    const cs_option options[] = {
        CS_OPT_DEVICE(&device),
    };
    const cs_positional positionals[] = {
        {"DIR|FILE", CS_MANY, &paths, "golden files, or folders of them with their cases.json"},
    };
    const cs_syntax syntax = {
        "verify",    "Replays golden cases of the authors' layer through this program's layer on a device.",
        options,     CS_COUNT(options),
        positionals, CS_COUNT(positionals)};
    int status;
    if (!cs_parse(&syntax, argc, argv, &status))
        return status;
    tally t = {.device = vk_open(&(vk_params){.selector = device})};
    bool ok = t.device;
    if (ok)
        printf("device %s, %s %s\nrule: no element of a tensor differs by more than the larger of %d times the "
               "reference's own"
               " float32 error (cases.json) and %.0e of the tensor's largest value (of a sum over experts: its largest "
               "summand's);"
               " integers and schedules are equal\n",
               vk_device_caps(t.device)->name, vk_device_caps(t.device)->driver, vk_device_caps(t.device)->driver_info,
               NN_VERIFY_TIMES, NN_VERIFY_SHARE);
    for (size_t i = 0; ok && i < paths.count; i++)
        ok = verify_path(&t, paths.items[i]);
    free(paths.items);
    vk_close(&t.device);
    if (!ok)
        return cs_failed();
    printf("%d passed, %d failed", t.passed, t.failed);
    if (t.unsupported)
        printf(", %d unsupported", t.unsupported);
    putchar('\n');
    return t.failed || !t.passed;
}
