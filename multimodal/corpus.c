#include "multimodal/corpus.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "multimodal/dataset.h"

#define CORPUS_MAX_BYTES ((size_t)1 << 30)

static bool add(mm_corpus *corpus, const char *text)
{
    if (!text[strspn(text, " \t\r")])
        return true;
    if (!cs_grow(&corpus->sentences, &corpus->capacity, corpus->count + 1, sizeof *corpus->sentences, "sentences"))
        return false;
    char *copy = cs_strdup(text);
    if (copy)
        corpus->sentences[corpus->count++] = copy;
    return copy;
}

static bool add_lines(mm_corpus *corpus, const char *path)
{
    size_t size;
    char *text = cs_read_file(path, CORPUS_MAX_BYTES, &size);
    if (!text)
        return false;
    const char *end = text + size;
    bool ok = !memchr(text, 0, size) || cs_fail("%s: not a text file: it holds NUL bytes", path);
    for (char *line = text; ok && line < end;) {
        char *next = memchr(line, '\n', (size_t)(end - line));
        next = next ? next : text + size;
        *next = 0;
        if (next > line && next[-1] == '\r')
            next[-1] = 0;
        ok = add(corpus, line);
        line = next + 1;
    }
    free(text);
    return ok;
}

static bool add_samples(mm_corpus *corpus, const char *path)
{
    mm_dataset *d = mm_dataset_open(path, &(mm_dataset_params){.text_only = true});
    bool ok = d;
    for (size_t i = 0; ok && i < d->count; i++)
        for (size_t t = 0; ok && t < d->samples[i].turn_count; t++)
            ok = add(corpus, d->samples[i].turns[t].question) && add(corpus, d->samples[i].turns[t].answer);
    mm_dataset_close(d);
    return ok;
}

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);
    return n >= m && !strcmp(text + n - m, end);
}

bool mm_corpus_add(mm_corpus *corpus, const char *path)
{
    size_t before = corpus->count;
    bool samples = ends_with(path, ".json") || ends_with(path, ".jsonl");
    if (samples ? add_samples(corpus, path) : add_lines(corpus, path))
        return true;
    while (corpus->count > before)
        free(corpus->sentences[--corpus->count]);
    return false;
}

void mm_corpus_free(mm_corpus *corpus)
{
    for (size_t i = 0; i < corpus->count; i++)
        free(corpus->sentences[i]);
    free(corpus->sentences);
    *corpus = (mm_corpus){0};
}
