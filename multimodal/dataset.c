#include "multimodal/dataset.h"

#include <ctype.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "multimodal/image.h"

#define IMAGE_MARK "<image>"

/* A sample's image while it is read; one with a wrong image does not stay. */
enum { NO_IMAGE = -1, WRONG_IMAGE = -2 };

enum { MAX_FILE = 0x7fffffff, CHUNK = 1 << 18, WARNINGS = 10 };

/* Strings and turns live as long as the data set: they are cut from large blocks and released together. */
typedef struct mm_dataset_memory {
    struct mm_dataset_memory *next;
    size_t used, size;
    _Alignas(max_align_t) char bytes[];
} block;

static void *keep(mm_dataset *d, size_t bytes)
{
    block *b = d->memory;
    bytes = (bytes + 7) / 8 * 8;
    if (!b || bytes > b->size - b->used) {
        size_t size = bytes > CHUNK ? bytes : CHUNK;
        b = cs_alloc(1, sizeof *b + size, "the samples of a data set");
        if (!b)
            return NULL;
        b->size = size;
        b->next = d->memory;
        d->memory = b;
    }
    b->used += bytes;
    return b->bytes + b->used - bytes;
}

static const char *keep_text(mm_dataset *d, const char *text, size_t length)
{
    char *copy = keep(d, length + 1);
    if (copy) {
        memcpy(copy, text, length);
        copy[length] = 0;
    }
    return copy;
}

/* State of one reading. `stop` ends it: a fault that is not tolerated, or no memory (the error is set). */
typedef struct reader {
    const mm_dataset_params *params;
    mm_dataset *data;
    char *root;
    json_t *places; /* picture as written in the file -> index into images */
    size_t capacity, image_capacity;
    unsigned line;  /* of the sample being read */
    uint32_t index; /* of the sample being read */
    bool bad, stop;
} reader;

static void hand_over(reader *r, const char *message)
{
    r->data->faults++;
    if (r->params->fault) {
        r->params->fault(r->params->user, message);
    } else if (r->params->skip_bad) {
        if (r->data->faults <= WARNINGS)
            cs_log(CS_LOG_WARN, "skipped: %s%s", message,
                   r->data->faults == WARNINGS ? " (further ones are only counted)" : "");
    } else {
        cs_fail("%s", message);
        r->stop = true;
    }
}

/* A fault of the current sample; false, so that a check can end with it. */
static bool fault(reader *r, const char *format, ...) CS_PRINTF(2, 3);
static bool fault(reader *r, const char *format, ...)
{
    char what[1024], message[1536];
    va_list args;
    r->bad = true;
    if (r->stop)
        return false;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    snprintf(message, sizeof message, "%s:%u: sample %u: %s", r->data->path, r->line, r->index, what);
    hand_over(r, message);
    return false;
}

static bool no_memory(reader *r)
{
    r->stop = r->bad = true;
    return false;
}

/* The member `name` of an object as a string that is not blank. */
static const char *text_member(reader *r, json_t *object, const char *where, const char *name)
{
    json_t *value = json_object_get(object, name);
    if (!value)
        return fault(r, "%s%s is missing", where, name), NULL;
    if (!json_is_string(value))
        return fault(r, "%s%s is not a string", where, name), NULL;
    const char *text = json_string_value(value);
    if (!text[strspn(text, " \t\r\n")])
        return fault(r, "%s%s is empty", where, name), NULL;
    return text;
}

static bool read_id(reader *r, json_t *object, mm_sample *s)
{
    json_t *id = json_object_get(object, "id");
    char number[32];
    const char *text = json_string_value(id);
    if (!id)
        return fault(r, "id is missing");
    if (json_is_integer(id)) {
        snprintf(number, sizeof number, "%lld", (long long)json_integer_value(id));
        text = number;
    }
    if (!text)
        return fault(r, "id is neither a string nor an integer");
    s->id = keep_text(r->data, text, strlen(text));
    return s->id || no_memory(r);
}

/* The picture's index, made at its first use. */
static bool read_image(reader *r, json_t *object, mm_sample *s)
{
    s->image = NO_IMAGE;
    if (!json_object_get(object, "image"))
        return true;
    s->image = WRONG_IMAGE;
    const char *name = text_member(r, object, "", "image");
    if (!name)
        return false;
    mm_dataset *d = r->data;
    json_t *place = json_object_get(r->places, name);
    if (place) {
        s->image = (int32_t)json_integer_value(place);
        return true;
    }
    if (!cs_grow(&d->images, &r->image_capacity, d->image_count + 1, sizeof *d->images, "the picture list"))
        return no_memory(r);
    char *path = cs_join(r->root, name);
    if (!path)
        return no_memory(r);
    s->image = (int32_t)d->image_count;
    d->images[d->image_count++] = path;
    if (json_object_set_new(r->places, name, json_integer(s->image)) != 0) {
        cs_fail("%s: out of memory for the picture list", d->path);
        return no_memory(r);
    }
    return true;
}

/* Takes the mark out and trims, as LLaVA's preprocess_multimodal does. */
static const char *question_without_mark(reader *r, const char *value, const char *mark)
{
    size_t before = (size_t)(mark - value), n = strlen(value) - strlen(IMAGE_MARK);
    char *text = keep(r->data, n + 1);
    if (!text)
        return no_memory(r), NULL;
    memcpy(text, value, before);
    strcpy(text + before, mark + strlen(IMAGE_MARK));
    while (n > 0 && isspace((unsigned char)text[n - 1]))
        text[--n] = 0;
    while (isspace((unsigned char)*text))
        text++;
    return text;
}

static bool read_words(reader *r, const mm_sample *s, size_t i, const char *value, const char **out)
{
    const char *mark = strstr(value, IMAGE_MARK);
    if (!mark) {
        *out = keep_text(r->data, value, strlen(value));
        return *out || no_memory(r);
    }
    if (s->image == NO_IMAGE)
        return fault(r, "conversations[%zu].value has <image>, but the sample has no image", i);
    if (i > 0)
        return fault(r, "conversations[%zu].value has <image>, which belongs into the first question", i);
    if (strstr(mark + 1, IMAGE_MARK))
        return fault(r, "conversations[%zu].value has <image> more than once", i);
    return (*out = question_without_mark(r, value, mark)) != NULL;
}

static bool read_message(reader *r, const mm_sample *s, json_t *message, size_t i, mm_turn *turn)
{
    char where[64];
    snprintf(where, sizeof where, "conversations[%zu].", i);
    if (!json_is_object(message))
        return fault(r, "conversations[%zu] is not an object", i);
    const char *from = text_member(r, message, where, "from"), *value = text_member(r, message, where, "value");
    if (from) {
        const char *expected = i % 2 ? "gpt" : "human";
        if (strcmp(from, "human") != 0 && strcmp(from, "gpt") != 0)
            fault(r, "%sfrom is '%s'; only human and gpt are known", where, from);
        else if (strcmp(from, expected) != 0)
            fault(r, "%sfrom is '%s' where '%s' has its turn", where, from, expected);
    }
    return value && read_words(r, s, i, value, i % 2 ? &turn->answer : &turn->question);
}

static bool read_turns(reader *r, json_t *object, mm_sample *s)
{
    json_t *list = json_object_get(object, "conversations"), *message;
    size_t i, n = json_array_size(list);
    if (!list)
        return fault(r, "conversations is missing");
    if (!json_is_array(list))
        return fault(r, "conversations is not an array");
    if (n == 0)
        return fault(r, "conversations is empty");
    mm_turn *turns = keep(r->data, (n + 1) / 2 * sizeof *turns);
    if (!turns)
        return no_memory(r);
    json_array_foreach(list, i, message)
        read_message(r, s, message, i, &turns[i / 2]);
    if (n % 2)
        fault(r, "conversations[%zu], the last question, has no answer", n - 1);
    const char *first = json_string_value(json_object_get(json_array_get(list, 0), "value"));
    if (s->image != NO_IMAGE && first && !strstr(first, IMAGE_MARK))
        fault(r, "the sample has an image, but its first question has no <image>");
    s->turns = turns;
    s->turn_count = (uint32_t)(n / 2);
    return !r->bad;
}

static void read_sample(reader *r, json_t *object)
{
    mm_dataset *d = r->data;
    mm_sample s = {.index = r->index, .line = r->line};
    r->bad = false;
    if (r->params->limit && d->count == r->params->limit)
        return;
    if (!json_is_object(object)) {
        fault(r, "is not an object");
    } else {
        read_id(r, object, &s);
        read_image(r, object, &s);
        read_turns(r, object, &s);
    }
    r->index++;
    if (r->bad) {
        d->bad++;
    } else if (!cs_grow(&d->samples, &r->capacity, d->count + 1, sizeof s, "the samples of a data set")) {
        r->stop = true;
    } else {
        d->samples[d->count++] = s;
    }
}

/* ---- the file ---- */

typedef struct cursor {
    const char *at, *end, *line_start;
    unsigned line;
} cursor;

static void skip_to(cursor *c, const char *to)
{
    for (const char *p; (p = memchr(c->at, '\n', (size_t)(to - c->at)));) {
        c->at = c->line_start = p + 1;
        c->line++;
    }
    c->at = to;
}

static void skip_space(cursor *c)
{
    const char *p = c->at;
    while (p < c->end && strchr(" \t\r\n", *p) && *p)
        p++;
    skip_to(c, p);
}

static void syntax_fault(reader *r, unsigned line, long column, const char *what)
{
    char message[1536];
    snprintf(message, sizeof message, "%s:%u:%ld: syntax error: %s", r->data->path, line, column, what);
    if (!r->stop)
        hand_over(r, message);
}

/* Parses one value at the cursor and moves behind it; with JSON_DISABLE_EOF_CHECK in `flags` more may follow. NULL
 * after a syntax fault. */
static json_t *parse_value(reader *r, cursor *c, const char *end, size_t flags)
{
    json_error_t error;
    json_t *value = json_loadb(c->at, (size_t)(end - c->at), flags | JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &error);
    if (!value) {
        unsigned line = error.line > 0 ? (unsigned)error.line - 1 : 0;
        long column = error.column + (line == 0 ? (long)(c->at - c->line_start) : 0);
        syntax_fault(r, c->line + line, column, error.text);
        return NULL;
    }
    skip_to(c, c->at + error.position);
    return value;
}

/* Element by element, so that the whole tree never stands in memory and every sample knows its line. */
static bool read_array(reader *r, cursor *c)
{
    bool more = true;
    for (c->at++, skip_space(c); more && !r->stop; skip_space(c)) {
        if (r->index == 0 && c->at < c->end && *c->at == ']')
            break;
        r->line = c->line;
        json_t *value = parse_value(r, c, c->end, JSON_DISABLE_EOF_CHECK);
        if (!value)
            return false;
        read_sample(r, value);
        json_decref(value);
        skip_space(c);
        more = c->at < c->end && *c->at == ',';
        c->at += more;
    }
    if (r->stop)
        return false;
    if (c->at >= c->end || *c->at != ']') {
        syntax_fault(r, c->line, c->at - c->line_start + 1,
                     c->at >= c->end ? "the array is not closed" : "',' or ']' expected");
        return false;
    }
    c->at++;
    skip_space(c);
    if (c->at < c->end) {
        syntax_fault(r, c->line, c->at - c->line_start + 1, "something follows the array");
        return false;
    }
    return true;
}

static bool read_lines(reader *r, cursor *c)
{
    for (skip_space(c); c->at < c->end && !r->stop; skip_space(c)) {
        const char *newline = memchr(c->at, '\n', (size_t)(c->end - c->at)), *end = newline ? newline : c->end;
        r->line = c->line;
        json_t *value = parse_value(r, c, end, 0);
        if (value) {
            read_sample(r, value);
        } else {
            r->data->bad++;
            r->index++;
        }
        json_decref(value);
        skip_to(c, end);
    }
    return !r->stop;
}

static bool read_file(reader *r)
{
    size_t size;
    char *text = cs_read_file(r->data->path, MAX_FILE, &size);
    if (!text)
        return false;
    cursor c = {text, text + size, text, 1};
    if (size >= 3 && !memcmp(text, "\xEF\xBB\xBF", 3)) /* byte order mark */
        c.at = c.line_start = text + 3;
    skip_space(&c);
    bool array = c.at < c.end && *c.at == '[', ok = array ? read_array(r, &c) : read_lines(r, &c);
    free(text);
    /* A broken array ends the reading even where faults are tolerated: what follows is anybody's guess. */
    if (!ok && array && !r->stop && !r->params->fault)
        return cs_fail("%s: syntax error in the JSON array (see the warning before)", r->data->path);
    return ok || (array && r->params->fault && !r->stop);
}

/* ---- pictures ---- */

static bool picture_is_fine(reader *r, const char *path)
{
    if (!cs_is_file(path))
        return cs_fail("%s: no such picture", path);
    if (!r->params->decode)
        return true;
    mm_image image;
    if (!mm_image_load(path, &image))
        return false;
    mm_image_free(&image);
    return true;
}

/* Takes out the samples whose picture cannot be read. */
static bool check_pictures(reader *r)
{
    mm_dataset *d = r->data;
    char **why = cs_alloc(d->image_count, sizeof *why, "the picture list");
    if (!why)
        return false;
    for (size_t i = 0; i < d->image_count && !r->stop; i++)
        if (!picture_is_fine(r, d->images[i]) && !(why[i] = cs_strdup(cs_error())))
            no_memory(r);
    size_t kept = 0;
    for (size_t i = 0; i < d->count && !r->stop; i++) {
        mm_sample s = d->samples[i];
        if (s.image < 0 || !why[s.image]) {
            d->samples[kept++] = s;
            continue;
        }
        r->index = s.index;
        r->line = s.line;
        fault(r, "%s", why[s.image]);
        d->bad++;
    }
    d->count = kept;
    for (size_t i = 0; i < d->image_count; i++)
        free(why[i]);
    free(why);
    return !r->stop;
}

static bool read_all(reader *r)
{
    mm_dataset *d = r->data;
    if (!read_file(r) || (!r->params->text_only && !check_pictures(r)))
        return false;
    for (size_t i = 0; i < d->count; i++)
        d->turns += d->samples[i].turn_count;
    if (d->count || r->params->fault)
        return true;
    return d->bad ? cs_fail("%s: none of its %zu samples can be used", d->path, d->bad)
                  : cs_fail("%s: has no samples", d->path);
}

mm_dataset *mm_dataset_open(const char *path, const mm_dataset_params *params)
{
    mm_dataset *d = cs_alloc(1, sizeof *d, "a data set");
    if (!d)
        return NULL;
    reader r = {.params = params, .data = d, .places = json_object()};
    d->path = cs_strdup(path);
    r.root = params->image_root ? cs_strdup(params->image_root) : cs_parent(path);
    bool ok = d->path && r.root && (r.places || cs_fail("%s: out of memory", path)) && read_all(&r);
    json_decref(r.places);
    free(r.root);
    if (ok && !params->fault && d->bad)
        cs_log(CS_LOG_WARN, "%s: %zu of %zu samples are skipped", path, d->bad, d->count + d->bad);
    if (ok)
        return d;
    mm_dataset_close(d);
    return NULL;
}

void mm_dataset_close(mm_dataset *d)
{
    if (!d)
        return;
    for (block *b = d->memory, *next; b; b = next) {
        next = b->next;
        free(b);
    }
    for (size_t i = 0; i < d->image_count; i++)
        free(d->images[i]);
    free(d->images);
    free(d->samples);
    free(d->path);
    free(d);
}
