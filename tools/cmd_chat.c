#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "multimodal/generate.h"
#include "tools/commands.h"
#include "tools/options.h"

typedef struct chat {
    mm_loaded loaded;
    mm_generate_params params;
    cs_random random;
    mm_image picture;
    bool has_picture, raw, ids;
    mm_turn *turns;
    size_t count, capacity;
} chat;

/* What the ids from `from` on add to the text of those before. They are decoded together: on its own, a text loses the
 * space that it begins with. free() it. */
static char *added_text(const mm_tokenizer *t, const int32_t *ids, size_t from, size_t count)
{
    size_t before, all;
    char *prompt = mm_tokenizer_decode(t, ids, from, &before), *text = mm_tokenizer_decode(t, ids, count, &all);
    char *added = prompt && text ? cs_strdup(text + (before < all ? before : all)) : NULL;
    free(prompt);
    free(text);
    return added;
}

/* Continues the `starts` ids, behind which there is room for max_tokens more, and prints what comes. */
static bool continue_ids(chat *c, const char *prompt, int32_t *ids, int starts)
{
    int count;
    if (!mm_generate_raw(&c->loaded, ids, starts, &c->params, ids + starts, &count))
        return false;
    if (c->ids) {
        for (int i = 0; i < count; i++)
            printf("%s%d", i ? " " : "", ids[starts + i]);
        putchar('\n');
        return true;
    }
    char *text = added_text(c->loaded.tokenizer, ids, (size_t)starts, (size_t)(starts + count));
    if (text)
        printf("%s%s\n", prompt, text);
    free(text);
    return text;
}

/* Continues the text as it is, for models that were not trained on conversations. */
static bool continue_text(chat *c, const char *prompt)
{
    int32_t *encoded;
    size_t n;
    if (!mm_tokenizer_encode(c->loaded.tokenizer, prompt, strlen(prompt), &encoded, &n))
        return false;
    int bos = mm_tokenizer_bos(c->loaded.tokenizer);
    size_t at = bos >= 0, starts = at + n;
    int32_t *ids = cs_alloc(starts + (size_t)c->params.max_tokens, sizeof *ids, "the text");
    if (ids) {
        ids[0] = bos;
        memcpy(ids + at, encoded, n * sizeof *ids);
    }
    free(encoded);
    bool ok = ids && (starts ? continue_ids(c, prompt, ids, (int)starts) : cs_fail("--prompt is empty"));
    free(ids);
    return ok;
}

static bool answer(chat *c, const char *question)
{
    if (c->raw)
        return continue_text(c, question);
    if (!cs_grow(&c->turns, &c->capacity, c->count + 1, sizeof *c->turns, "the conversation"))
        return false;
    char *asked = cs_strdup(question);
    if (!asked)
        return false;
    c->turns[c->count++] = (mm_turn){asked, NULL};
    char *text = mm_answer(&c->loaded, c->turns, c->count, c->has_picture ? &c->picture : NULL, &c->params);
    c->turns[c->count - 1].answer = text;
    if (text)
        printf("%s\n", text);
    fflush(stdout);
    return text;
}

/* Reads questions from standard input until its end. */
static bool converse(chat *c)
{
    bool terminal = isatty(STDIN_FILENO);
    char *line = NULL;
    size_t room = 0;
    bool ok = true;
    if (terminal)
        cs_log(CS_LOG_INFO, "Ask; an empty line or Ctrl-D ends.");
    while (ok) {
        if (terminal) {
            printf("> ");
            fflush(stdout);
        }
        ssize_t n = getline(&line, &room, stdin);
        if (n > 0 && line[n - 1] == '\n')
            line[--n] = 0;
        if (n <= 0)
            break;
        ok = answer(c, line);
    }
    free(line);
    return ok;
}

static void release(chat *c)
{
    for (size_t i = 0; i < c->count; i++) {
        free((char *)c->turns[i].question);
        free((char *)c->turns[i].answer);
    }
    free(c->turns);
    mm_image_free(&c->picture);
    mm_unload(&c->loaded);
}

static bool run(chat *c, const char *folder, const char *image, const char *prompt, vk_device *device)
{
    if (!mm_load(&c->loaded, folder, device, NULL, 0))
        return false;
    if (image && !c->loaded.model->sees)
        return cs_fail("--image %s: this model has no vision tower", image);
    if (image && !(c->has_picture = mm_image_load(image, &c->picture)))
        return false;
    c->params.stop = mm_format_end(&c->loaded.format);
    return prompt ? answer(c, prompt) : converse(c);
}

int cmd_chat(int argc, char **argv)
{
    chat c = {0};
    const char *folder = NULL, *image = NULL, *prompt = NULL, *device = NULL;
    double temperature = 0, top_p = 1;
    int64_t top_k = 0, seed = 1, max_tokens = 64;
    const cs_option options[] = {
        {"image", CS_OPT_STRING, &image, .arg = "FILE", .doc = "picture to talk about, PNG or JPEG"},
        {"prompt", CS_OPT_STRING, &prompt, .arg = "TEXT",
         .doc = "one question; without it a conversation on standard input"},
        {"max-tokens", CS_OPT_INT, &max_tokens, 1, 1 << 20, "N", "most tokens of an answer (default 64)"},
        {"temperature", CS_OPT_FLOAT, &temperature, 0, 100, "X", "0 takes the likeliest token (default), more draws"},
        {"top-k", CS_OPT_INT, &top_k, 0, 1 << 24, "N", "draw among the N likeliest tokens (default 0: all)"},
        {"top-p", CS_OPT_FLOAT, &top_p, 1e-6, 1, "X",
         "draw among the likeliest tokens that make up X of the probability (default 1)"},
        {"seed", CS_OPT_INT, &seed, 0, 9e15, "N", "of the draws (default 1)"},
        {"raw", CS_OPT_FLAG, &c.raw, .doc = "continue the prompt as it is, without the conversation template"},
        {"ids", CS_OPT_FLAG, &c.ids, .doc = "with --raw, print the new tokens' ids"},
        CS_OPT_DEVICE(&device),
    };
    const cs_positional positionals[] = {{"RUN", CS_ONE, &folder, "run folder or checkpoint"}};
    const cs_syntax syntax = {
        "chat", "Answers questions about a picture.", options, CS_COUNT(options), positionals, CS_COUNT(positionals)};
    int status;
    if (!cs_parse(&syntax, argc, argv, &status))
        return status;
    c.random = (cs_random){.seed = (uint64_t)seed, .stream = CS_STREAM_SAMPLE};
    c.params = (mm_generate_params){
        .sampling = {.temperature = (float)temperature, .top_k = (int)top_k, .top_p = (float)top_p},
        .random = &c.random,
        .max_tokens = (int)max_tokens,
        .stop = -1};
    vk_device *dev = vk_open(&(vk_params){.selector = device});
    if (!dev)
        return cs_failed();
    bool ok = run(&c, folder, image, prompt, dev);
    release(&c);
    vk_close(&dev);
    return ok ? 0 : cs_failed();
}
