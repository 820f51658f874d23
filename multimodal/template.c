#include "multimodal/template.h"

#include <string.h>

#include "base/error.h"
#include "base/memory.h"

struct mm_template {
    const char *name;
    const char *system;      /* NULL: none */
    const char *system_end;  /* between the system prompt and the first turn; a special token ends it in phi3 */
    const char *user;        /* before the user's words */
    const char *after_image; /* between picture and question */
    const char *user_end;    /* after a question */
    bool line;               /* a line feed after a question that is not empty */
    const char *assistant;   /* first of what the model has to say */
    const char *end;         /* NULL: end of sentence */
};

static const mm_template templates[] = {
    {
        .name = "plain",
        .system_end = "",
        .user = "",
        .after_image = "",
        .user_end = "",
        .line = true,
        .assistant = "",
    },
    {
        .name = "vicuna_v1",
        .system = "A chat between a curious user and an artificial intelligence assistant. "
                  "The assistant gives helpful, detailed, and polite answers to the user's questions.",
        .system_end = " ",
        .user = "USER: ",
        .after_image = "\n",
        .user_end = " ASSISTANT:",
        /* The space belongs to the answer's first piece, so the prompt for generation ends at the colon. */
        .assistant = " ",
    },
    {
        .name = "phi3",
        .system = "<|system|>\nYou are a helpful AI assistant.",
        .system_end = "<|end|>",
        .user = "\n<|user|>\n",
        .after_image = "\n",
        .user_end = "<|end|>\n<|assistant|>\n",
        .assistant = "",
        .end = "<|end|>",
    },
};

enum { TEMPLATES = sizeof templates / sizeof *templates };

const mm_template *mm_template_find(const char *name)
{
    for (size_t i = 0; i < TEMPLATES; i++)
        if (!strcmp(templates[i].name, name))
            return &templates[i];
    return cs_fail("conversation template '%s': unknown; known are plain, vicuna_v1, phi3", name), NULL;
}

const char *mm_template_end(const mm_template *t)
{
    return t->end;
}

static bool put(mm_spans *out, mm_span span)
{
    bool silent = (span.kind == MM_SPAN_MARKUP || span.kind == MM_SPAN_WORDS) && !*span.text;
    if (silent)
        return true;
    if (!cs_grow(&out->items, &out->capacity, out->count + 1, sizeof *out->items, "the spans of a conversation"))
        return false;
    out->items[out->count++] = span;
    return true;
}

static bool put_question(const mm_template *t, const char *question, int turn, bool after_image, mm_spans *out)
{
    bool ask = *question != 0;
    const char *lead = !after_image ? t->user : ask ? t->after_image : "";
    return put(out, (mm_span){MM_SPAN_MARKUP, lead, turn, false}) &&
           put(out, (mm_span){MM_SPAN_WORDS, question, turn, false}) &&
           put(out, (mm_span){MM_SPAN_MARKUP, t->user_end, turn, false}) &&
           (!t->line || !ask || put(out, (mm_span){MM_SPAN_LINE, NULL, turn, false}));
}

static bool put_answer(const mm_template *t, const char *answer, int turn, mm_spans *out)
{
    return put(out, (mm_span){MM_SPAN_MARKUP, t->assistant, turn, true}) &&
           put(out, (mm_span){MM_SPAN_WORDS, answer, turn, true}) &&
           put(out, (mm_span){MM_SPAN_END, t->end, turn, true});
}

static bool put_prefix(const mm_template *t, bool image, mm_spans *out)
{
    bool ok = put(out, (mm_span){MM_SPAN_BOS, NULL, 0, false});
    if (ok && t->system)
        ok = put(out, (mm_span){MM_SPAN_MARKUP, t->system, 0, false});
    if (ok && image)
        ok = put(out, (mm_span){MM_SPAN_MARKUP, t->system_end, 0, false}) &&
             put(out, (mm_span){MM_SPAN_MARKUP, t->user, 0, false}) &&
             put(out, (mm_span){MM_SPAN_IMAGE, NULL, 0, false});
    return ok;
}

bool mm_template_write(const mm_template *t, const mm_turn *turns, size_t count, bool image, mm_turns_mode mode,
                       mm_spans *out)
{
    out->count = 0;
    if (!put_prefix(t, image, out))
        return false;
    for (size_t i = 0; i < count; i++) {
        int turn = (int)i + 1;
        bool first = i == 0 || mode == MM_TURNS_ISOLATED;
        if (first && !image && !put(out, (mm_span){MM_SPAN_MARKUP, t->system_end, turn, false}))
            return false;
        if (!put_question(t, turns[i].question, turn, first && image, out))
            return false;
        if (turns[i].answer && !put_answer(t, turns[i].answer, turn, out))
            return false;
    }
    return true;
}
