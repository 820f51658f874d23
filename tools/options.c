#include "tools/options.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/memory.h"
#include "base/nearest.h"

enum { HELP_WIDTH = 100 };

int cs_failed(void)
{
    cs_log(CS_LOG_ERROR, "%s", cs_error());
    return 1;
}

int cs_wrong_usage(const char *command, const char *fmt, ...)
{
    char what[1024];
    va_list args;
    va_start(args, fmt);
    vsnprintf(what, sizeof what, fmt, args);
    va_end(args);
    cs_log(CS_LOG_ERROR, "csmoe %s: %s\nrun 'csmoe %s --help' to see how it is used", command, what, command);
    return 2;
}

/* Prints `text` broken into lines that start at column `indent`; the cursor stands at `column`. */
static void print_wrapped(const char *text, size_t column, size_t indent)
{
    while (*text) {
        size_t word = strcspn(text, " \n");
        if (column > indent && column + 1 + word > HELP_WIDTH) {
            putchar('\n');
            column = 0;
        } else if (column > indent) {
            putchar(' ');
            column++;
        }
        for (; column < indent; column++)
            putchar(' ');
        fwrite(text, 1, word, stdout);
        column += word;
        text += word;
        if (*text == '\n') {
            putchar('\n');
            column = 0;
        }
        text += *text != 0;
    }
    putchar('\n');
}

static void print_usage(const cs_syntax *s)
{
    printf("usage: csmoe %s%s", s->name, s->option_count ? " [options]" : "");
    for (size_t i = 0; i < s->positional_count; i++) {
        static const char *const form[] = {[CS_ONE] = " %s", [CS_OPTIONAL] = " [%s]", [CS_MANY] = " %s..."};
        printf(form[s->positionals[i].count], s->positionals[i].name);
    }
    putchar('\n');
}

static size_t option_width(const cs_option *o)
{
    return strlen(o->name) + (o->arg ? 1 + strlen(o->arg) : 0);
}

static void print_help(const cs_syntax *s)
{
    size_t width = strlen("help");
    for (size_t i = 0; i < s->option_count; i++)
        width = option_width(&s->options[i]) > width ? option_width(&s->options[i]) : width;
    for (size_t i = 0; i < s->positional_count; i++)
        width = strlen(s->positionals[i].name) > width + 2 ? strlen(s->positionals[i].name) - 2 : width;
    size_t indent = width + 6;

    print_usage(s);
    print_wrapped(s->about, 0, 0);
    if (s->positional_count)
        printf("\narguments:\n");
    for (size_t i = 0; i < s->positional_count; i++) {
        printf("  %-*s", (int)width + 4, s->positionals[i].name);
        print_wrapped(s->positionals[i].doc, indent, indent);
    }
    printf("\noptions:\n");
    for (size_t i = 0; i < s->option_count; i++) {
        const cs_option *o = &s->options[i];
        printf("  --%s%s%-*s", o->name, o->arg ? " " : "", (int)(width + 2 - strlen(o->name) - (o->arg != NULL)),
               o->arg ? o->arg : "");
        print_wrapped(o->doc, indent, indent);
    }
    printf("  --%-*sthis text\n", (int)width + 2, "help");
}

static bool append(cs_strings *list, const char *text)
{
    if (!cs_grow(&list->items, &list->capacity, list->count + 1, sizeof *list->items, "the command line"))
        return false;
    list->items[list->count++] = text;
    return true;
}

/* The parser's state: what is left to read, and the status to stop with. */
typedef struct parser {
    const cs_syntax *syntax;
    char **argv;
    int argc, next, status;
    size_t positional; /* the argument that comes next */
} parser;

static bool wrong_number(parser *p, const cs_option *o, const char *value, const char *kind)
{
    if (o->min != 0 || o->max != 0)
        p->status = cs_wrong_usage(p->syntax->name, "--%s %s: must be %s from %.10g to %.10g", o->name, value, kind,
                                   o->min, o->max);
    else
        p->status = cs_wrong_usage(p->syntax->name, "--%s %s: must be %s", o->name, value, kind);
    return false;
}

static bool in_range(const cs_option *o, double value)
{
    return (o->min == 0 && o->max == 0) || (value >= o->min && value <= o->max);
}

static bool set_int(parser *p, const cs_option *o, const char *text)
{
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (end == text || *end || errno || !in_range(o, (double)value))
        return wrong_number(p, o, text, "a whole number");
    *(int64_t *)o->target = value;
    return true;
}

static bool set_float(parser *p, const cs_option *o, const char *text)
{
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end || !isfinite(value) || !in_range(o, value))
        return wrong_number(p, o, text, "a number");
    *(double *)o->target = value;
    return true;
}

static bool set_option(parser *p, const cs_option *o, const char *value)
{
    switch (o->type) {
    case CS_OPT_FLAG:
        *(bool *)o->target = true;
        return true;
    case CS_OPT_INT:
        return set_int(p, o, value);
    case CS_OPT_FLOAT:
        return set_float(p, o, value);
    case CS_OPT_STRING:
        *(const char **)o->target = value;
        return true;
    case CS_OPT_LIST:
        if (append(o->target, value))
            return true;
        p->status = cs_failed();
        return false;
    }
    return false;
}

static bool unknown_option(parser *p, const char *text)
{
    const cs_syntax *s = p->syntax;
    const char *name = text + strspn(text, "-"), *near = NULL;
    if (s->option_count)
        near = cs_nearest(name, &s->options[0].name, s->option_count, sizeof s->options[0]);
    if (near)
        p->status = cs_wrong_usage(s->name, "unknown option '%s'; did you mean '--%s'?", text, near);
    else
        p->status = cs_wrong_usage(s->name, "unknown option '%s'", text);
    return false;
}

static bool parse_option(parser *p, const char *text)
{
    const cs_syntax *s = p->syntax;
    char dashed[66];
    size_t length = strcspn(text, "=");
    snprintf(dashed, sizeof dashed, "--%.*s", (int)length, text);
    const char *name = dashed + 2;
    const char *value = text[length] ? text + length + 1 : NULL;
    if (!strcmp(name, "help")) {
        print_help(s);
        p->status = 0;
        return false;
    }
    const cs_option *o = s->options, *end = o + s->option_count;
    while (o < end && strcmp(o->name, name) != 0)
        o++;
    if (o == end)
        return unknown_option(p, dashed);
    if (o->type == CS_OPT_FLAG && value) {
        p->status = cs_wrong_usage(s->name, "option '--%s' takes no value", name);
        return false;
    }
    if (o->type != CS_OPT_FLAG && !value) {
        if (p->next == p->argc) {
            p->status = cs_wrong_usage(s->name, "option '--%s' needs a value: --%s %s", name, name, o->arg);
            return false;
        }
        value = p->argv[p->next++];
    }
    return set_option(p, o, value);
}

static bool parse_positional(parser *p, const char *text)
{
    const cs_syntax *s = p->syntax;
    if (p->positional == s->positional_count) {
        p->status = cs_wrong_usage(s->name, "unexpected argument '%s'", text);
        return false;
    }
    const cs_positional *a = &s->positionals[p->positional];
    if (a->count != CS_MANY) {
        *(const char **)a->target = text;
        p->positional++;
        return true;
    }
    if (append(a->target, text))
        return true;
    p->status = cs_failed();
    return false;
}

static bool check_complete(parser *p)
{
    const cs_syntax *s = p->syntax;
    if (p->positional == s->positional_count)
        return true;
    const cs_positional *a = &s->positionals[p->positional];
    if (a->count == CS_OPTIONAL || (a->count == CS_MANY && ((const cs_strings *)a->target)->count))
        return true;
    p->status = cs_wrong_usage(s->name, "%s is missing: %s", a->name, a->doc);
    return false;
}

bool cs_parse(const cs_syntax *syntax, int argc, char **argv, int *status)
{
    parser p = {.syntax = syntax, .argv = argv, .argc = argc, .next = 1};
    bool ok = true, options = true;
    while (ok && p.next < argc) {
        char *text = argv[p.next++];
        if (options && !strcmp(text, "--"))
            options = false;
        else if (options && !strncmp(text, "--", 2))
            ok = parse_option(&p, text + 2);
        else if (options && !strcmp(text, "-h"))
            ok = parse_option(&p, "help");
        else if (options && text[0] == '-' && text[1])
            ok = unknown_option(&p, text);
        else
            ok = parse_positional(&p, text);
    }
    ok = ok && check_complete(&p);
    *status = p.status;
    return ok;
}
