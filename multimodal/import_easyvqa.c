#include "multimodal/import_easyvqa.h"

#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "multimodal/image.h"

enum { MAX_QUESTIONS_BYTES = 1 << 28, MAX_PICTURE = 1 << 20 };

/* printf into a fresh string; free() it. */
static char *format_text(const char *format, ...) CS_PRINTF(1, 2);
static char *format_text(const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    size_t size = (size_t)vsnprintf(NULL, 0, format, args) + 1;
    char *text = cs_alloc(size, 1, "a path");
    if (text)
        vsnprintf(text, size, format, again);
    va_end(again);
    va_end(args);
    return text;
}

static json_t *read_questions(const char *path)
{
    size_t size;
    char *text = cs_read_file(path, MAX_QUESTIONS_BYTES, &size);
    if (!text)
        return NULL;
    json_error_t error;
    json_t *list = json_loadb(text, size, 0, &error);
    if (!list) {
        cs_fail("%s:%d:%d: syntax error: %s", path, error.line, error.column, error.text);
    } else if (!json_is_array(list)) {
        json_decref(list);
        list = NULL;
        cs_fail("%s: is not an array of [question, answer, image]", path);
    }
    free(text);
    return list;
}

static json_t *new_sample(const char *split, long long picture)
{
    char id[64], image[64];
    snprintf(id, sizeof id, "%s-%lld", split, picture);
    snprintf(image, sizeof image, "images/%s/%lld.png", split, picture);
    return json_pack("{s:s, s:s, s:[]}", "id", id, "image", image, "conversations");
}

static bool add_turn(json_t *sample, const char *question, const char *answer)
{
    json_t *list = json_object_get(sample, "conversations");
    char *value = format_text("%s%s", json_array_size(list) ? "" : "<image>\n", question);
    bool ok = value && json_array_append_new(list, json_pack("{s:s, s:s}", "from", "human", "value", value)) == 0 &&
              json_array_append_new(list, json_pack("{s:s, s:s}", "from", "gpt", "value", answer)) == 0;
    free(value);
    return ok || cs_fail("out of memory for a sample");
}

/* Sorts the questions by picture: samples[picture], JSON null where a picture has none. */
static json_t *group_questions(const char *path, const char *split, json_t *questions, mm_import_counts *counts)
{
    json_t *samples = json_array(), *entry;
    size_t i;
    json_array_foreach(questions, i, entry) {
        const char *question = json_string_value(json_array_get(entry, 0));
        const char *answer = json_string_value(json_array_get(entry, 1));
        json_t *picture = json_array_get(entry, 2);
        long long number = json_integer_value(picture);
        if (!question || !answer || !json_is_integer(picture) || number < 0 || number > MAX_PICTURE) {
            json_decref(samples);
            return cs_fail("%s: entry %zu is not [question, answer, image]", path, i), NULL;
        }
        while (json_array_size(samples) <= (size_t)number)
            json_array_append_new(samples, json_null());
        if (json_is_null(json_array_get(samples, (size_t)number))) {
            json_array_set_new(samples, (size_t)number, new_sample(split, number));
            counts->samples++;
        }
        counts->turns++;
        if (!add_turn(json_array_get(samples, (size_t)number), question, answer)) {
            json_decref(samples);
            return NULL;
        }
    }
    return samples;
}

static bool copy_file(const char *from, const char *to)
{
    size_t size;
    char *data = cs_read_file(from, MM_IMAGE_MAX_BYTES, &size);
    bool ok = data && cs_write_unsynced(to, data, size);
    free(data);
    return ok;
}

static bool copy_pictures(const char *source, const char *target, const char *split, json_t *samples)
{
    char *folder = format_text("%s/images/%s", target, split);
    bool ok = folder && cs_make_folder(folder);
    for (size_t i = 0; ok && i < json_array_size(samples); i++) {
        if (json_is_null(json_array_get(samples, i)))
            continue;
        char *from = format_text("%s/%s/images/%zu.png", source, split, i), *to = format_text("%s/%zu.png", folder, i);
        ok = from && to && copy_file(from, to);
        free(from);
        free(to);
    }
    free(folder);
    return ok;
}

static bool write_samples(const char *target, const char *split, json_t *samples)
{
    char *path = format_text("%s/%s.json", target, split);
    cs_writer *w = path ? cs_writer_open(path) : NULL;
    bool first = true, ok = w != NULL;
    for (size_t i = 0; ok && i < json_array_size(samples); i++) {
        json_t *sample = json_array_get(samples, i);
        if (json_is_null(sample))
            continue;
        fputs(first ? "[\n" : ",\n", cs_writer_stream(w));
        first = false;
        ok = json_dumpf(sample, cs_writer_stream(w), 0) == 0 || cs_fail("%s: cannot write", path);
    }
    if (ok)
        fputs(first ? "[]\n" : "\n]\n", cs_writer_stream(w));
    if (ok)
        ok = cs_writer_commit(w);
    else
        cs_writer_abort(w);
    free(path);
    return ok;
}

static bool import_split(const char *source, const char *target, const char *split, mm_import_counts *counts)
{
    char *path = format_text("%s/%s/questions.json", source, split);
    json_t *questions = path ? read_questions(path) : NULL;
    json_t *samples = questions ? group_questions(path, split, questions, counts) : NULL;
    bool ok = samples && copy_pictures(source, target, split, samples) && write_samples(target, split, samples);
    json_decref(samples);
    json_decref(questions);
    free(path);
    return ok;
}

bool mm_import_easyvqa(const char *source, const char *target, mm_import_counts counts[2])
{
    counts[0] = counts[1] = (mm_import_counts){0};
    cs_folder *f = cs_folder_begin(target, false);
    if (f && import_split(source, cs_folder_path(f), "train", &counts[0]) &&
        import_split(source, cs_folder_path(f), "test", &counts[1])) {
        sync(); /* the pictures, all at once, before the name that says they are there */
        return cs_folder_commit(f);
    }
    cs_folder_abort(f);
    return false;
}
