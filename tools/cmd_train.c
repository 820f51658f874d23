#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "base/memory.h"
#include "multimodal/config.h"
#include "multimodal/trainer.h"
#include "tools/commands.h"
#include "tools/options.h"

static volatile sig_atomic_t stop;

/* The first Ctrl-C asks; the second one, of someone who cannot wait, ends the program. */
static void ask_to_stop(int signal_number)
{
    stop = 1;
    signal(signal_number, SIG_DFL);
}

static bool add_set(cs_strings *sets, const char *text)
{
    if (!cs_grow(&sets->items, &sets->capacity, sets->count + 1, sizeof *sets->items, "the overrides"))
        return false;
    sets->items[sets->count++] = text;
    return true;
}

static int print_plan(const mm_train_params *p, cs_strings *sets)
{
    mm_memory_plan plan;
    bool ok = mm_train_plan(p, &plan);
    if (ok)
        mm_memory_plan_print(&plan, stdout);
    free(sets->items);
    return ok ? 0 : cs_failed();
}

int cmd_train(int argc, char **argv)
{
    mm_train_params p = {.stop = &stop};
    cs_strings sets = {0};
    bool profile = false, describe = false, skip_bad = false, dry = false;
    int64_t trace_step = 0;
    const cs_option options[] = {
        {"out", CS_OPT_STRING, &p.out, .arg = "RUN", .doc = "folder of the run: log.jsonl and checkpoints"},
        {"set", CS_OPT_LIST, &sets, .arg = "KEY=VALUE",
         .doc = "override a key of the configuration, as in --set train.lr=1e-3"},
        {"resume", CS_OPT_FLAG, &p.resume, .doc = "go on from the run's newest checkpoint"},
        {"skip-bad", CS_OPT_FLAG, &skip_bad,
         .doc = "skip and count unreadable samples; the same as --set data.skip_bad=true"},
        CS_OPT_DEVICE(&p.device),
        {"profile", CS_OPT_FLAG, &profile, .doc = "time every kernel and print a table at the end"},
        {"trace", CS_OPT_STRING, &p.trace, .arg = "FILE",
         .doc = "write what host and device do during one step, for ui.perfetto.dev"},
        {"trace-step", CS_OPT_INT, &trace_step, 1, 9e15, "N", "the step to trace (default: the tenth from here)"},
        {"dry-run", CS_OPT_FLAG, &dry,
         .doc = "print the memory that training will take, and stop; --out is not needed"},
        {"describe-config", CS_OPT_FLAG, &describe, .doc = "print every key of the configuration (Markdown) and stop"},
    };
    const char *config = NULL;
    const cs_positional positionals[] = {
        {"CONFIG.json", CS_OPTIONAL, &config, "configuration, see docs/configuration.md"}};
    const cs_syntax syntax = {
        "train",     "Trains a model. Ctrl-C finishes the step, saves a checkpoint and says how to go on.",
        options,     CS_COUNT(options),
        positionals, CS_COUNT(positionals)};
    int status;
    if (!cs_parse(&syntax, argc, argv, &status))
        return status;
    if (describe)
        return mm_config_describe(stdout) ? 0 : cs_failed();
    if (!config || (!p.out && !dry))
        return cs_wrong_usage("train", config ? "--out RUN is missing: the folder for checkpoints and log"
                                              : "CONFIG.json is missing");
    if (trace_step && !p.trace)
        return cs_wrong_usage("train", "--trace-step needs --trace FILE");
    if (skip_bad && !add_set(&sets, "data.skip_bad=true"))
        return cs_failed();
    p.config = config;
    p.sets = sets.items;
    p.set_count = sets.count;
    if (dry)
        return print_plan(&p, &sets);
    p.profile = profile ? stdout : NULL;
    p.trace_step = (uint64_t)trace_step;
    signal(SIGINT, ask_to_stop);
    signal(SIGTERM, ask_to_stop);
    bool stopped;
    bool ok = mm_train(&p, &stopped);
    if (ok && stopped)
        cs_log(CS_LOG_INFO, "stopped and saved; go on with the same command and --resume");
    free(sets.items);
    return ok ? 0 : cs_failed();
}
