#include "tools/commands.h"

#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/nearest.h"
#include "tools/options.h"

static int cmd_version(int argc, char **argv)
{
    static const cs_syntax syntax = {"version", "Prints the program's name and version."};
    int status;
    if (!cs_parse(&syntax, argc, argv, &status))
        return status;
    printf("csmoe %s\n", CSMOE_VERSION);
    return 0;
}

/* In alphabetical order; the functions are declared in tools/commands.h. */
static const cs_command commands[] = {
    {"bench", "measure a device, compare machines", cmd_bench},
    {"chat", "answer questions about a picture", cmd_chat},
    {"check-data", "report every fault of a data file", cmd_check_data},
    {"devices", "list the Vulkan devices and which one is taken", cmd_devices},
    {"eval", "measure loss and exact-match accuracy of a model", cmd_eval},
    {"import", "turn public data or models into what csmoe reads", cmd_import},
    {"selftest", "check every operator on a device against its double reference", cmd_selftest},
    {"synth", "draw the demonstration data set", cmd_synth},
    {"tokenizer", "train a tokenizer, encode, decode", cmd_tokenizer},
    {"train", "train a model", cmd_train},
    {"tune", "measure which kernels are fastest on a device, and use them", cmd_tune},
    {"verify", "replay golden cases of the authors' layer", cmd_verify},
    {"version", "print the version", cmd_version},
};

static void list_commands(const char *prefix, const cs_command *list, size_t count)
{
    const char *space = *prefix ? " " : "";
    printf("usage: csmoe%s%s COMMAND [options] [arguments]\n\ncommands:\n", space, prefix);
    for (size_t i = 0; i < count; i++)
        printf("  %-12s%s\n", list[i].name, list[i].summary);
    printf("\n'csmoe%s%s COMMAND --help' explains a command.\n", space, prefix);
}

static const cs_command *find(const char *name, const cs_command *list, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (!strcmp(list[i].name, name))
            return &list[i];
    return NULL;
}

static int unknown_command(const char *prefix, const cs_command *list, size_t count, const char *name)
{
    const char *near = cs_nearest(name, &list[0].name, count, sizeof list[0]), *space = *prefix ? " " : "";
    const char *what = name[0] == '-' ? "option" : "command";
    if (near)
        cs_log(CS_LOG_ERROR, "csmoe%s%s: unknown %s '%s'; did you mean '%s'?", space, prefix, what, name, near);
    else
        cs_log(CS_LOG_ERROR, "csmoe%s%s: unknown %s '%s'; 'csmoe%s%s --help' lists the commands", space, prefix, what,
               name, space, prefix);
    return 2;
}

int cs_run_command(const char *prefix, const cs_command *list, size_t count, int argc, char **argv)
{
    if (argc < 2) {
        list_commands(prefix, list, count);
        return 2;
    }
    const char *name = argv[1];
    bool help = !strcmp(name, "help") || !strcmp(name, "--help") || !strcmp(name, "-h");
    if (help && (argc < 3 || !strcmp(argv[2], "--help"))) {
        list_commands(prefix, list, count);
        return 0;
    }
    if (help)
        name = argv[2];
    const cs_command *command = find(name, list, count);
    if (!command)
        return unknown_command(prefix, list, count, name);
    if (help) {
        char *line[] = {(char *)name, "--help", NULL};
        return command->run(2, line);
    }
    return command->run(argc - 1, argv + 1);
}

int cs_main(int argc, char **argv)
{
    if (argc == 2 && (!strcmp(argv[1], "--version") || !strcmp(argv[1], "-V")))
        argv[1] = "version";
    return cs_run_command("", commands, CS_COUNT(commands), argc, argv);
}
