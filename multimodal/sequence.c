#include "multimodal/sequence.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"

int mm_format_picture_tokens(const mm_format *f)
{
    int side = f->picture.size / f->picture.patch;
    return side * side;
}

int mm_format_patch_values(const mm_format *f)
{
    return 3 * f->picture.patch * f->picture.patch;
}

int32_t mm_format_end(const mm_format *f)
{
    const char *name = mm_template_end(f->conversation);
    int32_t id = name ? mm_tokenizer_id(f->tokenizer, name) : -1;
    return id >= 0 ? id : mm_tokenizer_eos(f->tokenizer);
}

/* The piece "\n", else its byte piece, else the unknown token, which parts question and answer as well. */
static int32_t line_feed(const mm_tokenizer *t)
{
    int id = mm_tokenizer_id(t, "\n");
    if (id < 0)
        id = mm_tokenizer_id(t, "<0x0A>");
    return id < 0 ? mm_tokenizer_unk(t) : id;
}

/* The text since the last special token and the tokens it has given so far. */
typedef struct run {
    char *text;
    size_t length, capacity;
    size_t done; /* bytes of the text that are tokens already */
    int32_t *ids;
    size_t id_count;
    bool after_marker; /* nothing yet but a "<|name|>" before it */
} run;

typedef struct encoder {
    const mm_format *format;
    mm_sequence *out;
    size_t capacity;
    run run;
    bool mute; /* tokens are known to the run but not written */
} encoder;

static bool emit(encoder *e, int32_t id, const mm_span *span)
{
    mm_sequence *s = e->out;
    if (e->mute)
        return true;
    if (!cs_grow(&s->tokens, &e->capacity, s->count + 1, sizeof *s->tokens, "the tokens of a sample"))
        return false;
    s->tokens[s->count++] = (mm_token){id, (uint32_t)span->turn, span->label};
    s->length += id == MM_PICTURE ? (uint32_t)mm_format_picture_tokens(e->format) : 1;
    return true;
}

/* Turns the run's new text into tokens that belong to `span`. */
static bool commit(encoder *e, const mm_span *span)
{
    run *r = &e->run;
    if (r->done == r->length)
        return true;
    int32_t *ids;
    size_t count;
    if (!mm_tokenizer_encode(e->format->tokenizer, r->text, r->length, &ids, &count))
        return false;
    if (count < r->id_count || (r->id_count && memcmp(ids, r->ids, r->id_count * sizeof *ids) != 0)) {
        /* A token would reach across the cut: from here on the text stands for itself. */
        free(ids);
        memmove(r->text, r->text + r->done, r->length - r->done);
        r->length -= r->done;
        r->id_count = 0;
        if (!mm_tokenizer_encode(e->format->tokenizer, r->text, r->length, &ids, &count))
            return false;
    }
    bool ok = true;
    for (size_t i = r->id_count; i < count && ok; i++)
        ok = emit(e, ids[i], span);
    free(r->ids);
    r->ids = ids;
    r->id_count = count;
    r->done = r->length;
    return ok;
}

static void restart(run *r)
{
    r->length = r->done = r->id_count = 0;
    r->after_marker = false;
}

/* White space behind a marker is dropped, as Phi-3's tokenizer does (its special tokens are "rstrip"). */
static bool append(run *r, const char *text, size_t length)
{
    for (; r->after_marker && length && strchr(" \t\r\n", *text); text++)
        length--;
    if (!length)
        return true;
    r->after_marker = false;
    if (!cs_grow(&r->text, &r->capacity, r->length + length, 1, "the text of a sample"))
        return false;
    memcpy(r->text + r->length, text, length);
    r->length += length;
    return true;
}

static bool special(encoder *e, int32_t id, const mm_span *span)
{
    bool ok = commit(e, span) && emit(e, id, span);
    restart(&e->run);
    return ok;
}

static bool marker(encoder *e, int32_t id, const mm_span *span)
{
    bool ok = special(e, id, span);
    e->run.after_marker = true;
    return ok;
}

/* The first "<|name|>" in the text that the tokenizer has as a token: its place, with its length and id; else NULL. */
static const char *find_special(const mm_tokenizer *t, const char *text, size_t *length, int32_t *id)
{
    const char *close;
    for (; (text = strstr(text, "<|")) && (close = strstr(text, "|>")); text++) {
        char name[32];
        *length = (size_t)(close + 2 - text);
        if (*length >= sizeof name)
            continue;
        memcpy(name, text, *length);
        name[*length] = 0;
        if ((*id = mm_tokenizer_id(t, name)) >= 0)
            return text;
    }
    return NULL;
}

/* The template's words: "<|name|>" becomes the special token of this name where there is one. */
static bool markup(encoder *e, const mm_span *span)
{
    const char *at = span->text;
    size_t length;
    int32_t id;
    for (const char *name; (name = find_special(e->format->tokenizer, at, &length, &id)); at = name + length)
        if (!append(&e->run, at, (size_t)(name - at)) || !marker(e, id, span))
            return false;
    return append(&e->run, at, strlen(at));
}

/* Words in which a special token's name is cut behind its "<|", because SentencePiece would find it in any text. */
static bool words(encoder *e, const mm_span *span)
{
    const char *at = span->text;
    size_t length;
    int32_t id;
    for (const char *name; (name = find_special(e->format->tokenizer, at, &length, &id)); at = name + 2) {
        if (!append(&e->run, at, (size_t)(name + 2 - at)) || !commit(e, span))
            return false;
        restart(&e->run);
    }
    return append(&e->run, at, strlen(at));
}

static bool encode_span(encoder *e, const mm_span *span)
{
    const mm_tokenizer *t = e->format->tokenizer;
    int32_t id;
    switch (span->kind) {
    case MM_SPAN_MARKUP:
        return markup(e, span);
    case MM_SPAN_WORDS:
        return words(e, span);
    case MM_SPAN_BOS:
        id = mm_tokenizer_bos(t);
        return id < 0 || special(e, id, span);
    case MM_SPAN_LINE:
        return special(e, line_feed(t), span);
    case MM_SPAN_IMAGE:
        return special(e, MM_PICTURE, span);
    case MM_SPAN_END:
        id = mm_format_end(e->format);
        if (id < 0)
            return cs_fail("the tokenizer has no end-of-sentence token to end an answer with");
        return span->text ? marker(e, id, span) : special(e, id, span);
    }
    return true;
}

/* Puts the run back to where the shared prefix ended, for a further isolated turn. */
static bool rewind_to_prefix(encoder *e, const mm_spans *spans)
{
    restart(&e->run);
    e->mute = true;
    bool ok = true;
    const mm_span *last = spans->items;
    for (size_t i = 0; i < spans->count && spans->items[i].turn == 0 && ok; i++) {
        last = &spans->items[i];
        ok = encode_span(e, last);
    }
    ok = ok && commit(e, last);
    e->mute = false;
    return ok;
}

static bool encode_spans(encoder *e, const mm_spans *spans)
{
    bool isolated = e->format->turns == MM_TURNS_ISOLATED;
    for (size_t i = 0; i < spans->count; i++) {
        const mm_span *span = &spans->items[i], *before = i ? span - 1 : span;
        if ((span->turn != before->turn || span->label != before->label) && !commit(e, before))
            return false;
        if (isolated && span->turn > 1 && span->turn != before->turn && !rewind_to_prefix(e, spans))
            return false;
        if (!encode_span(e, span))
            return false;
    }
    return !spans->count || commit(e, &spans->items[spans->count - 1]);
}

bool mm_sequence_encode(const mm_format *f, const mm_turn *turns, size_t count, bool image, mm_sequence *out)
{
    mm_spans spans = {0};
    encoder e = {.format = f, .out = out};
    *out = (mm_sequence){.turns = (uint32_t)count};
    bool ok = mm_template_write(f->conversation, turns, count, image, f->turns, &spans) && encode_spans(&e, &spans);
    free(e.run.text);
    free(e.run.ids);
    free(spans.items);
    if (!ok)
        mm_sequence_free(out);
    return ok;
}

void mm_sequence_free(mm_sequence *s)
{
    free(s->tokens);
    *s = (mm_sequence){0};
}

static void drop_last_token(const mm_format *f, mm_sequence *s)
{
    s->count--;
    s->length -= s->tokens[s->count].id == MM_PICTURE ? (uint32_t)mm_format_picture_tokens(f) : 1;
}

bool mm_sequence_limit(const mm_format *f, mm_sequence *s, size_t *dropped_turns, size_t *cut_samples)
{
    uint32_t limit = (uint32_t)f->max_tokens;
    if (!limit || s->length <= limit)
        return true;
    for (; s->length > limit && s->turns > 1; s->turns--, ++*dropped_turns)
        while (s->count && s->tokens[s->count - 1].turn == s->turns)
            drop_last_token(f, s);
    if (s->length <= limit)
        return true;
    while (s->length > limit && s->tokens[s->count - 1].turn)
        drop_last_token(f, s);
    ++*cut_samples;
    if (s->length > limit || !s->tokens[s->count - 1].turn)
        return cs_fail("max_tokens %u leaves no room for a question: system prompt and picture take %u tokens", limit,
                       s->length);
    return true;
}
