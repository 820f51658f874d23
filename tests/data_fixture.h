/* What the tests of multimodal/'s data side share: a folder of pictures and JSON, a tokenizer with one id per word. */
#ifndef TESTS_DATA_FIXTURE_H
#define TESTS_DATA_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/error.h"
#include "base/file.h"
#include "multimodal/image.h"
#include "multimodal/tokenizer.h"
#include "tests/folder_fixture.h"

static mm_tokenizer *words;

static inline const char *write_text(const char *name, const char *text)
{
    const char *path = in_folder(name);
    assert_true(cs_write_file(path, text, strlen(text)));
    return path;
}

/* A picture of grey noise that no flip or shift leaves alone; `value` tells it apart. */
static inline void write_picture(const char *name, int side, uint8_t value)
{
    mm_image image;
    assert_true(mm_image_new(side, side, &image));
    for (int i = 0; i < 3 * side * side; i++)
        image.rgb[i] = (uint8_t)(value + i * i % 31);
    assert_true(mm_image_write_png(&image, in_folder(name)));
    mm_image_free(&image);
}

static inline int word(const char *piece)
{
    int id = mm_tokenizer_id(words, piece);
    if (id < 0)
        fail_msg("the test's tokenizer has no '%s'", piece);
    return id;
}

static inline int close_folder(void **state)
{
    mm_tokenizer_free(words);
    words = NULL;
    return remove_folder(state);
}

/* The folder and a tokenizer that has every word of these sentences as one piece. */
static inline int open_words(const char *const *sentences, size_t count, const char *const *symbols,
                             size_t symbol_count)
{
    mm_tokenizer_options options = {
        .vocabulary = 200, .type = MM_MODEL_BPE, .symbols = symbols, .symbol_count = symbol_count};
    words = mm_tokenizer_train(sentences, count, &options);
    if (!words)
        fprintf(stderr, "%s\n", cs_error());
    return words ? make_folder(NULL) : -1;
}

#endif
