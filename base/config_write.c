/* The configuration written out: as JSON, as a difference, as the reference documentation. */
#include "base/config.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

/* With the fewest digits that read back as the same number. */
static void print_float(FILE *out, double value, bool narrow)
{
    char text[40];
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        double back = strtod(text, NULL);
        if (narrow ? (float)back == (float)value : back == value)
            break;
    }
    fputs(text, out);
}

static void print_string(FILE *out, const char *text)
{
    json_t *value = text ? json_string(text) : json_null();
    json_dumpf(value, out, JSON_ENCODE_ANY);
    json_decref(value);
}

static void print_value(FILE *out, const cs_field *f, const void *target)
{
    const char *member = (const char *)target + f->offset;
    switch (f->type) {
    case CS_BOOL:
        fputs(*(const bool *)member ? "true" : "false", out);
        break;
    case CS_INT:
        if (f->bytes == 8)
            fprintf(out, "%" PRId64, *(const int64_t *)member);
        else if (f->max > INT32_MAX)
            fprintf(out, "%" PRIu32, *(const uint32_t *)member);
        else
            fprintf(out, "%" PRId32, *(const int32_t *)member);
        break;
    case CS_FLOAT:
        if (f->bytes == sizeof(double))
            print_float(out, *(const double *)member, false);
        else
            print_float(out, *(const float *)member, true);
        break;
    case CS_FLOATS:
        fputc('[', out);
        for (size_t i = 0; i < f->bytes / sizeof(float); i++) {
            fputs(i ? ", " : "", out);
            print_float(out, ((const float *)member)[i], true);
        }
        fputc(']', out);
        break;
    case CS_STRING:
        print_string(out, *(char *const *)member);
        break;
    case CS_ENUM:
        print_string(out, f->choices[*(const int *)member]);
        break;
    }
}

/* Objects being written: the dotted path of the open ones, and whether the innermost has members already. */
typedef struct nest {
    FILE *out;
    char path[256];
    int depth;
    bool members;
} nest;

static void begin_member(nest *n, const char *key, size_t length)
{
    fprintf(n->out, "%s\n%*s\"%.*s\": ", n->members ? "," : "", 2 * (n->depth + 1), "", (int)length, key);
    n->members = true;
}

static void close_object(nest *n)
{
    char *dot = strrchr(n->path, '.');
    *(dot ? dot : n->path) = 0;
    fprintf(n->out, "\n%*s}", 2 * n->depth, "");
    n->depth--;
    n->members = true;
}

/* Closes and opens objects until `name` is the open one. */
static void enter(nest *n, const char *name)
{
    for (;;) {
        size_t open = strlen(n->path);
        if (!open || (!strncmp(name, n->path, open) && (!name[open] || name[open] == '.')))
            break;
        close_object(n);
    }
    for (size_t open; (open = strlen(n->path)) < strlen(name);) {
        const char *part = name + open + (open > 0);
        size_t length = strcspn(part, ".");
        begin_member(n, part, length);
        fputc('{', n->out);
        snprintf(n->path, sizeof n->path, "%.*s", (int)((size_t)(part - name) + length), name);
        n->depth++;
        n->members = false;
    }
}

void cs_config_write(const cs_config *config, FILE *out)
{
    nest n = {.out = out};
    fputc('{', out);
    for (size_t i = 0; i < config->count; i++) {
        const cs_section *s = &config->sections[i];
        enter(&n, s->name);
        for (size_t j = 0; j < s->count; j++) {
            begin_member(&n, s->fields[j].key, strlen(s->fields[j].key));
            print_value(out, &s->fields[j], s->target);
        }
    }
    enter(&n, "");
    fputs("\n}\n", out);
}

static char *value_text(const cs_field *f, const void *target)
{
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    if (out) {
        print_value(out, f, target);
        fclose(out);
    }
    if (!text)
        cs_fail("out of memory comparing two configurations");
    return text;
}

bool cs_config_same(const cs_config *a, const cs_config *b)
{
    bool same = true;
    for (size_t i = 0; i < a->count && same; i++) {
        const cs_section *s = &a->sections[i];
        for (size_t j = 0; j < s->count && same; j++) {
            char *mine = value_text(&s->fields[j], s->target);
            char *other = value_text(&s->fields[j], b->sections[i].target);
            same = mine && other;
            if (same && strcmp(mine, other) != 0)
                same = cs_fail("%s%s%s is %s, not %s", s->name, *s->name ? "." : "", s->fields[j].key, mine, other);
            free(mine);
            free(other);
        }
    }
    return same;
}

static void describe_type(const cs_field *f, FILE *out)
{
    static const char *const names[] = {[CS_BOOL] = "true or false",
                                        [CS_INT] = "integer",
                                        [CS_FLOAT] = "number",
                                        [CS_STRING] = "string",
                                        [CS_FLOATS] = "numbers"};
    if (f->type == CS_ENUM) {
        for (int i = 0; f->choices[i]; i++)
            fprintf(out, "%s`\"%s\"`", i ? ", " : "", f->choices[i]);
        return;
    }
    if (f->type == CS_FLOATS)
        fprintf(out, "%zu ", f->bytes / sizeof(float));
    fputs(names[f->type], out);
    bool number = f->type == CS_INT || f->type == CS_FLOAT || f->type == CS_FLOATS;
    if (number && (f->min != 0 || f->max != 0))
        fprintf(out, ", %.10g to %.10g", f->min, f->max);
}

void cs_config_describe(const cs_config *config, FILE *out)
{
    for (size_t i = 0; i < config->count; i++) {
        const cs_section *s = &config->sections[i];
        if (*s->name)
            fprintf(out, "%s## %s\n\n", i ? "\n" : "", s->name);
        if (s->doc)
            fprintf(out, "%s\n\n", s->doc);
        if (!s->count)
            continue;
        fputs("| key | value | default | meaning |\n|---|---|---|---|\n", out);
        for (size_t j = 0; j < s->count; j++) {
            const cs_field *f = &s->fields[j];
            fprintf(out, "| `%s` | ", f->key);
            describe_type(f, out);
            if (f->fallback)
                fprintf(out, " | `%s` | %s |\n", f->fallback, f->doc);
            else
                fprintf(out, " | required | %s |\n", f->doc);
        }
    }
}
