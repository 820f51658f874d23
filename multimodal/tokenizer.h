/* Text to ids and back: a C API over SentencePiece. The one C++ file of the project stands behind it; exceptions stop
 * there. */
#ifndef MULTIMODAL_TOKENIZER_H
#define MULTIMODAL_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Immutable once made; every function on a const tokenizer is thread-safe. */
typedef struct mm_tokenizer mm_tokenizer;

/* Model files beyond this are refused. */
#define MM_TOKENIZER_MAX_BYTES ((size_t)64 << 20)

/* Reads a SentencePiece `.model` file. NULL with the error set, naming the file, where it is missing, a folder, empty
 * or not such a model. */
mm_tokenizer *mm_tokenizer_load(const char *path);

/* The same from the bytes of such a file; `name` is what an error calls them. The bytes are copied. */
mm_tokenizer *mm_tokenizer_from_memory(const void *data, size_t size, const char *name);

/* Reads the tokenizer of llama2.c (`tokenizer.bin`, `tok512.bin`) and rebuilds the SentencePiece model that it was
 * exported from: BPE with byte fallback, no normalisation, a space put before the text. */
mm_tokenizer *mm_tokenizer_from_llama2c(const char *path);

/* NULL is fine. */
void mm_tokenizer_free(mm_tokenizer *t);

/* Number of ids. */
int mm_tokenizer_size(const mm_tokenizer *t);

/* Special ids, -1 where the model has none; every model has `unk`. */
int mm_tokenizer_unk(const mm_tokenizer *t);
int mm_tokenizer_bos(const mm_tokenizer *t);
int mm_tokenizer_eos(const mm_tokenizer *t);
int mm_tokenizer_pad(const mm_tokenizer *t);

/* Ids of `length` bytes of text, without bos and eos. `*ids` is released with free() and never NULL on success. */
bool mm_tokenizer_encode(const mm_tokenizer *t, const char *text, size_t length, int32_t **ids, size_t *count);

/* Text of the ids, ended by a NUL beyond its `*length` bytes (`length` may be NULL); free() it. Control pieces such as
 * bos give nothing, a leading space that encoding put there is dropped. NULL with the error set for an id out of
 * range. */
char *mm_tokenizer_decode(const mm_tokenizer *t, const int32_t *ids, size_t count, size_t *length);

/* The piece of an id, owned by the tokenizer; NULL with the error set where the id is out of range. */
const char *mm_tokenizer_piece(const mm_tokenizer *t, int id);

/* The id of a piece, -1 where the vocabulary lacks it. */
int mm_tokenizer_id(const mm_tokenizer *t, const char *piece);

/* The serialized model, as `tokenizer.model` holds it; owned by the tokenizer. */
const void *mm_tokenizer_model(const mm_tokenizer *t, size_t *size);

enum mm_model_type { MM_MODEL_UNIGRAM, MM_MODEL_BPE, MM_MODEL_WORD, MM_MODEL_CHAR };

typedef struct mm_tokenizer_options {
    int vocabulary; /* ids wanted; fewer come out where the text does not yield them */
    enum mm_model_type type;
    double coverage;            /* share of the characters that get a piece, 0.98..1; 0 means 1 */
    const char *const *symbols; /* pieces that are never split, `symbol_count` of them */
    size_t symbol_count;
    bool byte_fallback; /* 256 byte pieces, so that no text is unknown */
} mm_tokenizer_options;

/* Trains on sentences in memory, one thread, no random choice: the same text gives the same model. Text is taken as it
 * is (no normalisation); ids 0 <unk>, 1 <s>, 2 </s>, 3 <pad>, then the symbols. NULL with the error set. */
mm_tokenizer *mm_tokenizer_train(const char *const *sentences, size_t count, const mm_tokenizer_options *options);

#ifdef __cplusplus
}
#endif
#endif
