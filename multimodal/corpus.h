/* Sentences to train a tokenizer on, gathered from files. */
#ifndef MULTIMODAL_CORPUS_H
#define MULTIMODAL_CORPUS_H

#include <stdbool.h>
#include <stddef.h>

typedef struct mm_corpus {
    char **sentences;
    size_t count, capacity;
} mm_corpus;

/* Adds the file's sentences: every question and answer of a data set in LLaVA's format (`.json`, `.jsonl`), every line
 * of any other file, blank ones left out. Fails naming the file; `corpus` then keeps what it had. */
bool mm_corpus_add(mm_corpus *corpus, const char *path);

/* Releases the sentences and zeroes the struct. */
void mm_corpus_free(mm_corpus *corpus);

#endif
