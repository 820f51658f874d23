/* Conversation templates: how LLaVA writes questions, answers and the picture into one text, and which part is learned.
 *
 *   plain      <image>question\nanswer</s>question\nanswer</s>...
 *   vicuna_v1  SYSTEM USER: <image>\nquestion ASSISTANT: answer</s>USER: question ASSISTANT: answer</s>...
 *   phi3       <|system|>\nSYSTEM<|end|>\n<|user|>\n<image>\nquestion<|end|>\n<|assistant|>\nanswer<|end|>\n<|user|>...
 *
 * vicuna_v1 is LLaVA's conv_vicuna_v1, phi3 is conv_phi3_instruct of its Phi-3 branch. LLaVA's own plain is for
 * captions only: it drops the question's words and ends with a line feed. Here plain keeps the question, so that small
 * models can be trained on questions without the burden of a system prompt, and ends with the end-of-sentence token,
 * so that generation knows where to stop. Its line feed is one token of its own, so that the answer is tokenised as a
 * text of its own, as LLaVA's captions are; where the question is empty (a caption) there is no line feed either. */
#ifndef MULTIMODAL_TEMPLATE_H
#define MULTIMODAL_TEMPLATE_H

#include <stdbool.h>
#include <stddef.h>

/* One question and its answer, without the <image> mark. A NULL answer (last turn only) is one to be generated. */
typedef struct mm_turn {
    const char *question, *answer;
} mm_turn;

/* How the turns of one sample see each other. */
typedef enum mm_turns_mode {
    MM_TURNS_CONVERSATION, /* each turn sees the earlier ones, as in LLaVA */
    MM_TURNS_ISOLATED,     /* each turn sees the shared prefix (system prompt and picture) and itself only */
} mm_turns_mode;

typedef enum mm_span_kind {
    MM_SPAN_BOS,    /* begin of sentence, where the tokenizer has one */
    MM_SPAN_MARKUP, /* the template's own words; a "<|name|>" in them is a special token where the tokenizer has it */
    MM_SPAN_WORDS,  /* the user's or the assistant's words; "<|name|>" in them is text like any other */
    MM_SPAN_LINE,   /* a line feed as one token of its own */
    MM_SPAN_IMAGE,  /* the picture's tokens */
    MM_SPAN_END,    /* end of an answer: the special token `text`, else end of sentence */
} mm_span_kind;

typedef struct mm_span {
    mm_span_kind kind;
    const char *text; /* borrowed from the template or the turn */
    int turn;         /* 0 = shared prefix, k >= 1 = turn k */
    bool label;       /* the assistant's words and end marker: what the model learns to say */
} mm_span;

typedef struct mm_spans {
    mm_span *items; /* free() */
    size_t count, capacity;
} mm_spans;

typedef struct mm_template mm_template;

/* The template of this name; NULL with the error set and the known names in it. */
const mm_template *mm_template_find(const char *name);
/* The special token that ends an answer, NULL where it is the end of sentence. */
const char *mm_template_end(const mm_template *t);

/* Writes the conversation as spans, replacing the content of `out`. In isolated mode every turn is written as if it
 * were the first one after the shared prefix. */
bool mm_template_write(const mm_template *t, const mm_turn *turns, size_t count, bool image, mm_turns_mode mode,
                       mm_spans *out);

#endif
