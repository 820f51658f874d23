#include "base/config.h"

#include <jansson.h>
#include <math.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "base/nearest.h"

enum { FILE_LIMIT = 1 << 20, KEY_LIMIT = 256 };

/* Where values come from, for messages: a file with its text, a --set argument, or (both NULL) the tables' defaults. */
typedef struct source {
    const char *path, *text;
    const char *set;
} source;

/* ---- the line of a key ---- */

/* jansson keeps no positions, so an error looks its key up in the text, which has been parsed and is valid JSON. */
typedef struct walk {
    const char *at;
    int line, found;
} walk;

static void skip_space(walk *w)
{
    for (; *w->at && strchr(" \t\r\n,:", *w->at); w->at++)
        w->line += *w->at == '\n';
}

static void skip_string(walk *w)
{
    for (w->at++; *w->at && *w->at != '"'; w->at++)
        w->at += w->at[0] == '\\' && w->at[1];
    w->at += *w->at == '"';
}

/* Walks over one value; `wanted` is the dotted path looked for below it, NULL for none. */
static void walk_value(walk *w, const char *wanted)
{
    skip_space(w);
    if (*w->at == '"') {
        skip_string(w);
    } else if (*w->at != '{' && *w->at != '[') {
        w->at += strcspn(w->at, " \t\r\n,]}");
    } else {
        bool object = *w->at++ == '{';
        for (skip_space(w); *w->at && *w->at != ']' && *w->at != '}' && !w->found; skip_space(w)) {
            const char *below = NULL;
            if (object) {
                const char *key = w->at + 1;
                skip_string(w);
                size_t n = (size_t)(w->at - key) - 1;
                bool match = wanted && !strncmp(wanted, key, n);
                if (match && !wanted[n])
                    w->found = w->line;
                below = match && wanted[n] == '.' ? wanted + n + 1 : NULL;
            }
            walk_value(w, below);
        }
        w->at += *w->at != 0;
    }
}

/* Puts where a key stands before the message. */
static bool fault(const source *from, const char *key, const char *fmt, ...) CS_PRINTF(3, 4);
static bool fault(const source *from, const char *key, const char *fmt, ...)
{
    char what[1024];
    va_list args;
    va_start(args, fmt);
    vsnprintf(what, sizeof what, fmt, args);
    va_end(args);
    if (from->set)
        return cs_fail("--set %s: %s", from->set, what);
    if (!from->text)
        return cs_fail("%s", what);
    walk w = {.at = from->text, .line = 1};
    if (*key)
        walk_value(&w, key);
    return cs_fail("%s:%d: %s", from->path, w.found ? w.found : 1, what);
}

/* ---- one value ---- */

static const char *kind_of(const json_t *value)
{
    static const char *const names[] = {
        [JSON_OBJECT] = "an object", [JSON_ARRAY] = "a list", [JSON_STRING] = "a string", [JSON_INTEGER] = "a number",
        [JSON_REAL] = "a number",    [JSON_TRUE] = "true",    [JSON_FALSE] = "false",     [JSON_NULL] = "null"};
    return names[json_typeof(value)];
}

static bool set_int(const source *from, const char *key, const cs_field *f, char *member, const json_t *value)
{
    double number = json_number_value(value), limit = f->bytes == 8 ? 0x1p63 : 0x1p31;
    if (!json_is_number(value) || number != floor(number))
        return fault(from, key, "'%s' must be a whole number, not %s", key,
                     json_is_number(value) ? "a fraction" : kind_of(value));
    bool limited = f->min != 0 || f->max != 0;
    double min = limited ? f->min : -limit, max = limited ? f->max : limit - 1;
    if (number < min || number > max || number >= 0x1p63)
        return fault(from, key, "'%s' is %.17g, but must be from %.17g to %.17g", key, number, min, max);
    int64_t wide = json_is_integer(value) ? json_integer_value(value) : (int64_t)number;
    if (f->bytes == 8) {
        memcpy(member, &wide, 8);
    } else {
        uint32_t narrow = (uint32_t)wide; /* the low half serves signed and unsigned members */
        memcpy(member, &narrow, 4);
    }
    return true;
}

static bool check_float(const source *from, const char *key, const cs_field *f, const json_t *value)
{
    if (!json_is_number(value))
        return fault(from, key, "'%s' must be a number, not %s", key, kind_of(value));
    double number = json_number_value(value);
    if ((f->min != 0 || f->max != 0) && (number < f->min || number > f->max))
        return fault(from, key, "'%s' is %.9g, but must be from %.9g to %.9g", key, number, f->min, f->max);
    if (f->bytes != sizeof(double) && !isfinite((float)number))
        return fault(from, key, "'%s' is %.9g, too large for a 32-bit float", key, number);
    return true;
}

static bool set_float(const source *from, const char *key, const cs_field *f, char *member, const json_t *value)
{
    if (!check_float(from, key, f, value))
        return false;
    double wide = json_number_value(value);
    float narrow = (float)wide;
    if (f->bytes == sizeof wide)
        memcpy(member, &wide, sizeof wide);
    else
        memcpy(member, &narrow, sizeof narrow);
    return true;
}

static bool set_floats(const source *from, const char *key, const cs_field *f, char *member, const json_t *value)
{
    size_t wanted = f->bytes / sizeof(float);
    if (!json_is_array(value) || json_array_size(value) != wanted)
        return fault(from, key, "'%s' must be a list of %zu numbers", key, wanted);
    cs_field element = *f;
    element.bytes = sizeof(float);
    for (size_t i = 0; i < wanted; i++)
        if (!set_float(from, key, &element, member + i * sizeof(float), json_array_get(value, i)))
            return false;
    return true;
}

static bool set_string(const source *from, const char *key, const cs_field *f, char *member, const json_t *value)
{
    bool none = json_is_null(value) && f->fallback && !strcmp(f->fallback, "null");
    if (!none && !json_is_string(value))
        return fault(from, key, "'%s' must be a string, not %s", key, kind_of(value));
    char *fresh = none ? NULL : cs_strdup(json_string_value(value)), *old;
    if (!none && !fresh)
        return false;
    memcpy(&old, member, sizeof old);
    free(old);
    memcpy(member, &fresh, sizeof fresh);
    return true;
}

static bool set_enum(const source *from, const char *key, const cs_field *f, char *member, const json_t *value)
{
    if (!json_is_string(value))
        return fault(from, key, "'%s' must be a string, not %s", key, kind_of(value));
    const char *word = json_string_value(value);
    int count = 0;
    for (; f->choices[count]; count++)
        if (!strcmp(f->choices[count], word)) {
            memcpy(member, &count, sizeof count);
            return true;
        }
    const char *near = cs_nearest(word, f->choices, (size_t)count, sizeof *f->choices);
    if (near)
        return fault(from, key, "'%s' is '%s', which is not known; did you mean '%s'?", key, word, near);
    char known[512] = "";
    for (int i = 0; i < count; i++) {
        strncat(known, i ? ", " : "", sizeof known - strlen(known) - 1);
        strncat(known, f->choices[i], sizeof known - strlen(known) - 1);
    }
    return fault(from, key, "'%s' is '%s', but must be one of %s", key, word, known);
}

static bool set_value(const source *from, const char *key, const cs_section *s, const cs_field *f, const json_t *value)
{
    char *member = (char *)s->target + f->offset;
    switch (f->type) {
    case CS_BOOL:
        if (!json_is_boolean(value))
            return fault(from, key, "'%s' must be true or false, not %s", key, kind_of(value));
        *(bool *)member = json_is_true(value);
        return true;
    case CS_INT:
        return set_int(from, key, f, member, value);
    case CS_FLOAT:
        return set_float(from, key, f, member, value);
    case CS_FLOATS:
        return set_floats(from, key, f, member, value);
    case CS_STRING:
        return set_string(from, key, f, member, value);
    case CS_ENUM:
        return set_enum(from, key, f, member, value);
    }
    return false;
}

/* ---- keys ---- */

static bool full_key(char out[KEY_LIMIT], const char *section, const char *key)
{
    int n = snprintf(out, KEY_LIMIT, "%s%s%s", section, *section ? "." : "", key);
    return (n >= 0 && n < KEY_LIMIT) || cs_fail("the key '%.40s...' is too long", key);
}

/* Whether `name` is the section `of` itself or lies in it. */
static bool section_within(const char *name, const char *of)
{
    size_t n = strlen(of);
    return !strncmp(name, of, n) && (!name[n] || name[n] == '.');
}

static const cs_section *find_section(const cs_config *c, const char *name)
{
    for (size_t i = 0; i < c->count; i++)
        if (!strcmp(c->sections[i].name, name))
            return &c->sections[i];
    return NULL;
}

static bool is_section(const cs_config *c, const char *name)
{
    for (size_t i = 0; i < c->count; i++)
        if (*c->sections[i].name && section_within(c->sections[i].name, name))
            return true;
    return false;
}

/* The name of the field or section within `parent` nearest to `word`, written to `near`; false where none is near. */
static bool nearest_key(const cs_config *c, const char *parent, const char *word, char near[KEY_LIMIT])
{
    size_t skip = *parent ? strlen(parent) + 1 : 0;
    size_t best = SIZE_MAX;
    for (size_t i = 0; i < c->count; i++) {
        const cs_section *s = &c->sections[i];
        char name[KEY_LIMIT] = "";
        if (strlen(s->name) > skip && (!skip || section_within(s->name, parent)))
            snprintf(name, sizeof name, "%.*s", (int)strcspn(s->name + skip, "."), s->name + skip);
        const char *candidates[] = {name}, *found = cs_nearest(word, candidates, *name != 0, sizeof *candidates);
        const char *field = !strcmp(s->name, parent) && s->count
                                ? cs_nearest(word, &s->fields[0].key, s->count, sizeof s->fields[0])
                                : NULL;
        if (field && (!found || cs_edit_distance(word, field) < cs_edit_distance(word, found)))
            found = field;
        if (found && cs_edit_distance(word, found) < best) {
            best = cs_edit_distance(word, found);
            snprintf(near, KEY_LIMIT, "%s", found);
        }
    }
    return best != SIZE_MAX;
}

static bool apply_object(const cs_config *c, const source *from, const char *section, json_t *object);

/* One key of `parent` ("" outermost): a field's value, or a section's object. */
static bool apply_key(const cs_config *c, const source *from, const char *parent, const char *key, json_t *value)
{
    char full[KEY_LIMIT], near[KEY_LIMIT];
    if (!full_key(full, parent, key))
        return false;
    const cs_section *s = find_section(c, parent);
    for (size_t i = 0; s && i < s->count; i++)
        if (!strcmp(s->fields[i].key, key))
            return set_value(from, full, s, &s->fields[i], value);
    if (is_section(c, full))
        return apply_object(c, from, full, value);
    if (nearest_key(c, parent, key, near))
        return fault(from, full, "unknown key '%s'; did you mean '%s'?", full, near);
    return fault(from, full, "unknown key '%s'", full);
}

static bool apply_object(const cs_config *c, const source *from, const char *section, json_t *object)
{
    if (!json_is_object(object))
        return fault(from, section, "'%s' must be an object {...}, not %s", *section ? section : "configuration",
                     kind_of(object));
    const char *key;
    json_t *value;
    json_object_foreach(object, key, value)
        if (!apply_key(c, from, section, key, value))
            return false;
    return true;
}

/* ---- reading ---- */

static json_t *parse_file(const char *path, const char *text, size_t size)
{
    json_error_t e;
    json_t *root = json_loadb(text, size, JSON_REJECT_DUPLICATES, &e);
    if (!root)
        cs_fail("%s:%d:%d: not valid JSON: %s", path, e.line, e.column, e.text);
    return root;
}

static bool apply_defaults(const cs_config *c)
{
    for (size_t i = 0; i < c->count; i++)
        for (size_t j = 0; j < c->sections[i].count; j++) {
            const cs_field *f = &c->sections[i].fields[j];
            json_t *value = f->fallback ? json_loads(f->fallback, JSON_DECODE_ANY, NULL) : NULL;
            bool ok = !f->fallback || (value && set_value(&(source){0}, f->key, &c->sections[i], f, value));
            json_decref(value);
            if (!ok)
                return cs_fail_in("the default of '%s.%s' (%s)", c->sections[i].name, f->key, f->fallback);
        }
    return true;
}

/* Applies "a.b.key=value" and notes in `given` (an object used as a set) that the key has been given. */
static bool apply_set(const cs_config *c, const char *set, json_t *given)
{
    const char *equals = strchr(set, '=');
    if (!equals || equals == set || equals - set >= KEY_LIMIT)
        return cs_fail("--set %s: must have the form key=value", set);
    char parent[KEY_LIMIT];
    snprintf(parent, sizeof parent, "%.*s", (int)(equals - set), set);
    json_object_set_new(given, parent, json_true());
    char *dot = strrchr(parent, '.');
    const char *key = dot ? dot + 1 : parent, *above = dot ? parent : "";
    char name[KEY_LIMIT];
    snprintf(name, sizeof name, "%s", key);
    if (dot)
        *dot = 0;
    json_t *value = json_loads(equals + 1, JSON_DECODE_ANY, NULL);
    if (!value && !(value = json_string(equals + 1)))
        return cs_fail("--set %s: the value is not valid UTF-8", set);
    const source from = {.set = set};
    char near[KEY_LIMIT];
    bool ok;
    if (!*above || is_section(c, above))
        ok = apply_key(c, &from, above, name, value);
    else if (nearest_key(c, "", above, near))
        ok = fault(&from, above, "unknown section '%s'; did you mean '%s'?", above, near);
    else
        ok = fault(&from, above, "unknown section '%s'", above);
    json_decref(value);
    return ok;
}

/* The value of a dotted key, NULL where it is absent. */
static const json_t *look_up(const json_t *object, const char *key)
{
    while (object && *key) {
        char part[KEY_LIMIT];
        size_t n = strcspn(key, ".");
        snprintf(part, sizeof part, "%.*s", (int)n, key);
        object = json_object_get(object, part);
        key += n + (key[n] == '.');
    }
    return object;
}

static bool check_required(const cs_config *c, const char *path, const json_t *root, const json_t *given)
{
    for (size_t i = 0; i < c->count; i++)
        for (size_t j = 0; j < c->sections[i].count; j++) {
            const cs_field *f = &c->sections[i].fields[j];
            char key[KEY_LIMIT];
            if (f->fallback)
                continue;
            if (!full_key(key, c->sections[i].name, f->key))
                return false;
            if (!look_up(root, key) && !json_object_get(given, key))
                return cs_fail("%s: the key '%s' is missing (%s)", path ? path : "configuration", key, f->doc);
        }
    return true;
}

bool cs_config_parse(const cs_config *config, const char *name, const char *text, size_t size,
                     const char *const *sets, size_t set_count)
{
    json_t *root = text ? parse_file(name, text, size) : NULL, *given = json_object();
    bool ok = (!text || root) && apply_defaults(config);
    if (ok && root)
        ok = apply_object(config, &(source){.path = name, .text = text}, "", root);
    for (size_t i = 0; ok && i < set_count; i++)
        ok = apply_set(config, sets[i], given);
    ok = ok && check_required(config, name, root, given);
    json_decref(given);
    json_decref(root);
    return ok;
}

bool cs_config_read(const cs_config *config, const char *path, const char *const *sets, size_t set_count)
{
    size_t size = 0;
    char *text = path ? cs_read_file(path, FILE_LIMIT, &size) : NULL;
    bool ok = (!path || text) && cs_config_parse(config, path, text, size, sets, set_count);
    free(text);
    return ok;
}

void cs_config_release(const cs_config *config)
{
    for (size_t i = 0; i < config->count; i++)
        for (size_t j = 0; j < config->sections[i].count; j++) {
            const cs_field *f = &config->sections[i].fields[j];
            if (f->type != CS_STRING)
                continue;
            char *member = (char *)config->sections[i].target + f->offset, *text, *none = NULL;
            memcpy(&text, member, sizeof text);
            free(text);
            memcpy(member, &none, sizeof none);
        }
}
