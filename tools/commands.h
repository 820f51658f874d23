/* The csmoe program's commands: one function per file tools/cmd_NAME.c, one row per command in tools/commands.c. */
#ifndef TOOLS_COMMANDS_H
#define TOOLS_COMMANDS_H

#include <stddef.h>

/* Runs a command; argv[0] is its name, its own options and arguments follow. Returns the exit status: 0 done, 1 failed
 * (after cs_failed()), 2 wrong usage. */
typedef int cs_command_fn(int argc, char **argv);

typedef struct cs_command {
    const char *name;
    const char *summary; /* one line without a period, for the list of commands */
    cs_command_fn *run;
} cs_command;

/* The commands with a file of their own, in alphabetical order. */
cs_command_fn cmd_bench;
cs_command_fn cmd_chat;
cs_command_fn cmd_check_data;
cs_command_fn cmd_devices;
cs_command_fn cmd_eval;
cs_command_fn cmd_import;
cs_command_fn cmd_selftest;
cs_command_fn cmd_synth;
cs_command_fn cmd_tokenizer;
cs_command_fn cmd_train;
cs_command_fn cmd_tune;
cs_command_fn cmd_verify;

/* Runs the command that argv[1] names; says which one is nearest when there is none. `prefix` is what stands before the
 * name on the command line: "" for the program itself, "tokenizer" for that command's own commands.
 * "help [COMMAND]" and "--help" list the commands or show one's help. */
int cs_run_command(const char *prefix, const cs_command *commands, size_t count, int argc, char **argv);

/* The program: argv as main() gets it. */
int cs_main(int argc, char **argv);

#endif
