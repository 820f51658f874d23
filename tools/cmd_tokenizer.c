#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

#include "base/file.h"
#include "base/memory.h"
#include "base/nearest.h"
#include "multimodal/corpus.h"
#include "multimodal/tokenizer.h"
#include "tools/commands.h"
#include "tools/options.h"

static const char *const type_names[] = {"unigram", "bpe", "word", "char"};

static bool find_type(const char *name, enum mm_model_type *type)
{
    for (size_t i = 0; i < CS_COUNT(type_names); i++) {
        if (!strcmp(name, type_names[i])) {
            *type = (enum mm_model_type)i;
            return true;
        }
    }
    return false;
}

static bool train(const cs_strings *files, const mm_tokenizer_options *options, const char *out)
{
    mm_corpus corpus = {0};
    mm_tokenizer *t = NULL;
    bool ok = true;
    for (size_t i = 0; ok && i < files->count; i++)
        ok = mm_corpus_add(&corpus, files->items[i]);
    if (ok)
        t = mm_tokenizer_train((const char *const *)corpus.sentences, corpus.count, options);
    if (t) {
        size_t size;
        const void *model = mm_tokenizer_model(t, &size);
        ok = cs_write_file(out, model, size);
        if (ok)
            printf("%s: %d pieces from %zu sentences\n", out, mm_tokenizer_size(t), corpus.count);
    }
    ok = ok && t;
    mm_tokenizer_free(t);
    mm_corpus_free(&corpus);
    return ok;
}

static int run_train(int argc, char **argv)
{
    const char *out = "tokenizer.model", *type = "bpe";
    int64_t vocabulary = 1000;
    double coverage = 1;
    bool byte_fallback = false;
    cs_strings files = {0}, symbols = {0};
    const cs_option options[] = {
        {"byte-fallback", CS_OPT_FLAG, &byte_fallback, .doc = "256 byte pieces, so that no text is unknown"},
        {"coverage", CS_OPT_FLOAT, &coverage, 0.98, 1, "SHARE", "share of the characters that get a piece (default 1)"},
        {"out", CS_OPT_STRING, &out, .arg = "FILE", .doc = "model to write (default tokenizer.model)"},
        {"symbol", CS_OPT_LIST, &symbols, .arg = "TEXT", .doc = "a piece that is never split; may be repeated"},
        {"type", CS_OPT_STRING, &type, .arg = "TYPE", .doc = "bpe (default), unigram, word or char"},
        {"vocabulary", CS_OPT_INT, &vocabulary, 8, 1000000, "N", "pieces at most (default 1000)"},
    };
    const cs_positional arguments[] = {
        {"FILE", CS_MANY, &files, "text, a sentence per line, or data in LLaVA's format (.json, .jsonl)"}};
    const cs_syntax syntax = {.name = "tokenizer train",
                              .about = "Trains a SentencePiece model.",
                              .options = options,
                              .option_count = CS_COUNT(options),
                              .positionals = arguments,
                              .positional_count = CS_COUNT(arguments)};
    int status;
    if (!cs_parse(&syntax, argc, argv, &status))
        return status;
    mm_tokenizer_options wanted = {(int)vocabulary, 0, coverage, symbols.items, symbols.count, byte_fallback};
    if (!find_type(type, &wanted.type)) {
        const char *near = cs_nearest(type, type_names, CS_COUNT(type_names), sizeof *type_names);
        status =
            cs_wrong_usage("tokenizer train", "--type: unknown type '%s'%s%s%s", type, near ? "; did you mean '" : "",
                           near ? near : "", near ? "'?" : "; bpe, unigram, word or char");
    } else {
        status = train(&files, &wanted, out) ? 0 : cs_failed();
    }
    free(files.items);
    free(symbols.items);
    return status;
}

/* A SentencePiece model, or llama2.c's format where the name ends in .bin. */
static mm_tokenizer *open_model(const char *path)
{
    size_t n = strlen(path);
    return n > 4 && !strcmp(path + n - 4, ".bin") ? mm_tokenizer_from_llama2c(path) : mm_tokenizer_load(path);
}

/* Calls `each` for the text given, or for every line of standard input where there is none. */
static bool for_each_line(const mm_tokenizer *t, const char *given, bool pieces,
                          bool (*each)(const mm_tokenizer *t, const char *text, size_t length, bool pieces))
{
    if (given)
        return each(t, given, strlen(given), pieces);
    bool ok = true;
    char *line = NULL;
    size_t capacity = 0;
    for (ssize_t n; ok && (n = getline(&line, &capacity, stdin)) >= 0;) {
        if (n && line[n - 1] == '\n')
            line[--n] = 0;
        ok = each(t, line, (size_t)n, pieces);
    }
    free(line);
    return ok && (!ferror(stdin) || cs_fail("standard input: cannot read: %s", strerror(errno)));
}

static bool encode(const mm_tokenizer *t, const char *text, size_t length, bool pieces)
{
    int32_t *ids;
    size_t count;
    if (!mm_tokenizer_encode(t, text, length, &ids, &count))
        return false;
    for (size_t i = 0; i < count; i++) {
        if (pieces)
            printf("%s%s", i ? " " : "", mm_tokenizer_piece(t, ids[i]));
        else
            printf("%s%" PRId32, i ? " " : "", ids[i]);
    }
    putchar('\n');
    free(ids);
    return true;
}

/* Whole numbers between blanks or commas. */
static bool parse_ids(const char *text, int32_t **ids, size_t *count)
{
    size_t capacity = 0;
    *ids = NULL;
    *count = 0;
    for (const char *p = text + strspn(text, " \t\r,"); *p; p += strspn(p, " \t\r,")) {
        char *end;
        errno = 0;
        long v = strtol(p, &end, 10);
        if (end == p || !strchr(" \t\r,", *end) || errno || v < INT32_MIN || v > INT32_MAX)
            return cs_fail("decoding ids: '%s' is not an id", p);
        if (!cs_grow(ids, &capacity, *count + 1, sizeof **ids, "token ids"))
            return false;
        (*ids)[(*count)++] = (int32_t)v;
        p = end;
    }
    return true;
}

static bool decode(const mm_tokenizer *t, const char *text, size_t length, bool pieces)
{
    (void)length;
    (void)pieces;
    int32_t *ids;
    size_t count, size;
    char *said = parse_ids(text, &ids, &count) ? mm_tokenizer_decode(t, ids, count, &size) : NULL;
    if (said) {
        fwrite(said, 1, size, stdout);
        putchar('\n');
    }
    free(said);
    free(ids);
    return said;
}

static int run_encode(int argc, char **argv)
{
    const char *model = NULL, *text = NULL;
    bool pieces = false;
    const cs_option options[] = {{"pieces", CS_OPT_FLAG, &pieces, .doc = "print the pieces instead of their ids"}};
    const cs_positional arguments[] = {{"MODEL", CS_ONE, &model, "SentencePiece model, or llama2.c's (.bin)"},
                                       {"TEXT", CS_OPTIONAL, &text, "default: each line of standard input"}};
    const cs_syntax syntax = {.name = "tokenizer encode",
                              .about = "Prints the ids of a text, without begin and end of sentence.",
                              .options = options,
                              .option_count = CS_COUNT(options),
                              .positionals = arguments,
                              .positional_count = CS_COUNT(arguments)};
    int status;
    if (!cs_parse(&syntax, argc, argv, &status))
        return status;
    mm_tokenizer *t = open_model(model);
    status = t && for_each_line(t, text, pieces, encode) ? 0 : cs_failed();
    mm_tokenizer_free(t);
    return status;
}

static int run_decode(int argc, char **argv)
{
    const char *model = NULL, *ids = NULL;
    const cs_positional arguments[] = {
        {"MODEL", CS_ONE, &model, "SentencePiece model, or llama2.c's (.bin)"},
        {"IDS", CS_OPTIONAL, &ids,
         "ids between blanks or commas, as one argument; default: each line of standard input"}};
    const cs_syntax syntax = {.name = "tokenizer decode",
                              .about = "Prints the text of a list of ids.",
                              .positionals = arguments,
                              .positional_count = CS_COUNT(arguments)};
    int status;
    if (!cs_parse(&syntax, argc, argv, &status))
        return status;
    mm_tokenizer *t = open_model(model);
    status = t && for_each_line(t, ids, false, decode) ? 0 : cs_failed();
    mm_tokenizer_free(t);
    return status;
}

int cmd_tokenizer(int argc, char **argv)
{
    static const cs_command commands[] = {
        {"decode", "ids to text", run_decode},
        {"encode", "text to ids", run_encode},
        {"train", "train a SentencePiece model", run_train},
    };
    return cs_run_command("tokenizer", commands, CS_COUNT(commands), argc, argv);
}
