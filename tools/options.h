/* Table-driven command lines: a command describes its options and arguments once; parsing, checking and help follow. */
#ifndef TOOLS_OPTIONS_H
#define TOOLS_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

/* What an option or argument fills; its target must have the type given here. */
enum cs_option_type {
    CS_OPT_FLAG,   /* bool: --name */
    CS_OPT_INT,    /* int64_t: --name N or --name=N, within min..max */
    CS_OPT_FLOAT,  /* double, within min..max */
    CS_OPT_STRING, /* const char * into argv */
    CS_OPT_LIST,   /* cs_strings: may be given several times */
};

/* Strings into argv in the order given; free(items). */
typedef struct cs_strings {
    const char **items;
    size_t count, capacity;
} cs_strings;

typedef struct cs_option {
    const char *name; /* without the dashes */
    enum cs_option_type type;
    void *target;    /* holds the default before parsing */
    double min, max; /* of numbers, inclusive; no limits where both are 0 */
    const char *arg; /* how help calls the value: "N", "FILE"; NULL for a flag */
    const char *doc;
} cs_option;

/* --device N, the same wherever one device is worked on. */
#define CS_OPT_DEVICE(target) \
    {"device", CS_OPT_STRING, target, .arg = "N", .doc = "device: index, part of the name or UUID"}

enum cs_positional_count { CS_ONE, CS_OPTIONAL, CS_MANY /* one or more, the last argument only */ };

typedef struct cs_positional {
    const char *name; /* "DIR" */
    enum cs_positional_count count;
    void *target; /* const char **; cs_strings * for CS_MANY */
    const char *doc;
} cs_positional;

typedef struct cs_syntax {
    const char *name;  /* what follows "csmoe": "synth", "tokenizer train" */
    const char *about; /* what it does, in sentences */
    const cs_option *options;
    size_t option_count;
    const cs_positional *positionals;
    size_t positional_count;
} cs_syntax;

/* Fills the targets from argv[1..]. False when the command must not run, with `*status` to exit with: 0 after --help
 * (printed on stdout), 2 after wrong usage and 1 for lack of memory (said on stderr). Options and arguments may be
 * mixed; "--" ends the options.
 *
 *     static const cs_option options[] = {
 *         {"images", CS_OPT_INT, &images, 1, 1000000, "N", "pictures to draw (default 4000)"},
 *         {"json", CS_OPT_FLAG, &json, .doc = "write JSON"},
 *     };
 *     static const cs_positional arguments[] = {{"DIR", CS_ONE, &dir, "folder to write"}};
 *     static const cs_syntax syntax = {"synth", "Draws pictures.", options, CS_COUNT(options), arguments, 1};
 *     int status;
 *     if (!cs_parse(&syntax, argc, argv, &status))
 *         return status; */
bool cs_parse(const cs_syntax *syntax, int argc, char **argv, int *status);

/* Says what is wrong with the command line as cs_parse() does, and returns 2: for what a table cannot express. */
int cs_wrong_usage(const char *command, const char *fmt, ...) CS_PRINTF(2, 3);

/* Says "error: " and the current error on stderr and returns 1, the exit status. */
int cs_failed(void);

#define CS_COUNT(array) (sizeof(array) / sizeof(array)[0])

#endif
