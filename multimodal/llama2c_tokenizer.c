/* llama2.c's tokenizer file (karpathy/llama2.c, tokenizer.py): int32 longest piece, then per piece f32 score, int32
 * length and its bytes, where the word separator was written as a space and the ids 1 and 2 as "\n<s>\n" and
 * "\n</s>\n". */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "multimodal/tokenizer.h"

/* A protocol buffer being written. */
struct message {
    uint8_t *data;
    size_t size, capacity;
    bool failed;
};

enum wire_type { WIRE_VARINT = 0, WIRE_BYTES = 2, WIRE_FLOAT = 5 };

/* Field numbers and values of sentencepiece_model.proto. */
enum { MODEL_PIECES = 1, MODEL_TRAINER = 2, MODEL_NORMALIZER = 3 };
enum { PIECE_TEXT = 1, PIECE_SCORE = 2, PIECE_TYPE = 3 };
enum { PIECE_NORMAL = 1, PIECE_UNKNOWN = 2, PIECE_CONTROL = 3, PIECE_BYTE = 6 };
enum { TRAINER_TYPE = 3, TRAINER_VOCABULARY = 4, TRAINER_BYTE_FALLBACK = 35, TRAINER_TYPE_BPE = 2 };
enum { NORMALIZER_NAME = 1, NORMALIZER_DUMMY_PREFIX = 3, NORMALIZER_TRIM = 4, NORMALIZER_ESCAPE = 5 };

enum { ID_UNKNOWN = 0, ID_BOS = 1, ID_EOS = 2, ID_FIRST_BYTE = 3, BYTE_COUNT = 256, MAX_PIECE = 4096 };

static void put_bytes(struct message *m, const void *data, size_t size)
{
    m->failed = m->failed || !cs_grow(&m->data, &m->capacity, m->size + size, 1, "a tokenizer model");
    if (m->failed)
        return;
    memcpy(m->data + m->size, data, size);
    m->size += size;
}

static void put_varint(struct message *m, uint64_t v)
{
    for (; v >= 0x80; v >>= 7)
        put_bytes(m, &(uint8_t){(uint8_t)(v | 0x80)}, 1);
    put_bytes(m, &(uint8_t){(uint8_t)v}, 1);
}

static void put_number(struct message *m, int field, uint64_t v)
{
    put_varint(m, (uint64_t)field << 3 | WIRE_VARINT);
    put_varint(m, v);
}

static void put_block(struct message *m, int field, const void *data, size_t size)
{
    put_varint(m, (uint64_t)field << 3 | WIRE_BYTES);
    put_varint(m, size);
    put_bytes(m, data, size);
}

static void put_message(struct message *m, int field, struct message *inner)
{
    m->failed = m->failed || inner->failed;
    if (!m->failed)
        put_block(m, field, inner->data, inner->size);
    free(inner->data);
}

static int piece_type(size_t id)
{
    if (id == ID_UNKNOWN)
        return PIECE_UNKNOWN;
    if (id == ID_BOS || id == ID_EOS)
        return PIECE_CONTROL;
    return id < ID_FIRST_BYTE + BYTE_COUNT ? PIECE_BYTE : PIECE_NORMAL;
}

/* The piece's text with every space as U+2581, which is what SentencePiece calls a word separator. */
static void put_piece_text(struct message *m, const char *text, size_t size)
{
    static const char separator[] = "\xe2\x96\x81";
    char escaped[MAX_PIECE * 3];
    size_t n = 0;
    for (size_t i = 0; i < size; i++) {
        if (text[i] == ' ') {
            memcpy(escaped + n, separator, 3);
            n += 3;
        } else {
            escaped[n++] = text[i];
        }
    }
    put_block(m, PIECE_TEXT, escaped, n);
}

static void put_piece(struct message *model, size_t id, const char *text, size_t size, const uint8_t score[4])
{
    struct message piece = {0};
    if (id == ID_BOS)
        put_block(&piece, PIECE_TEXT, "<s>", 3);
    else if (id == ID_EOS)
        put_block(&piece, PIECE_TEXT, "</s>", 4);
    else
        put_piece_text(&piece, text, size);
    put_varint(&piece, PIECE_SCORE << 3 | WIRE_FLOAT);
    put_bytes(&piece, score, 4);
    put_number(&piece, PIECE_TYPE, (uint64_t)piece_type(id));
    put_message(model, MODEL_PIECES, &piece);
}

static uint32_t little_u32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

/* All pieces of the file; `*count` of them. */
static bool put_pieces(struct message *model, const uint8_t *data, size_t size, const char *path, size_t *count)
{
    size_t at = 4;
    for (*count = 0; at < size; (*count)++) {
        if (size - at < 8)
            return cs_fail("%s: truncated llama2.c tokenizer: it ends inside piece %zu", path, *count);
        uint32_t length = little_u32(data + at + 4);
        if (length == 0 || length > MAX_PIECE)
            return cs_fail("%s: not a llama2.c tokenizer: piece %zu says it is %u bytes long", path, *count, length);
        if (length > size - at - 8)
            return cs_fail("%s: truncated llama2.c tokenizer: it ends inside piece %zu", path, *count);
        put_piece(model, *count, (const char *)data + at + 8, length, data + at);
        at += 8 + (size_t)length;
    }
    if (*count <= ID_FIRST_BYTE + BYTE_COUNT)
        return cs_fail("%s: not a whole llama2.c tokenizer: it has %zu pieces", path, *count);
    return true;
}

static void put_specs(struct message *model, size_t pieces)
{
    struct message trainer = {0}, normalizer = {0};
    put_number(&trainer, TRAINER_TYPE, TRAINER_TYPE_BPE);
    put_number(&trainer, TRAINER_VOCABULARY, pieces);
    put_number(&trainer, TRAINER_BYTE_FALLBACK, 1);
    put_message(model, MODEL_TRAINER, &trainer);
    put_block(&normalizer, NORMALIZER_NAME, "identity", 8);
    put_number(&normalizer, NORMALIZER_DUMMY_PREFIX, 1);
    put_number(&normalizer, NORMALIZER_TRIM, 0);
    put_number(&normalizer, NORMALIZER_ESCAPE, 1);
    put_message(model, MODEL_NORMALIZER, &normalizer);
}

mm_tokenizer *mm_tokenizer_from_llama2c(const char *path)
{
    size_t size, pieces;
    char *data = cs_read_file(path, MM_TOKENIZER_MAX_BYTES, &size);
    if (!data)
        return NULL;
    struct message model = {0};
    mm_tokenizer *t = NULL;
    if (size < 4)
        cs_fail("%s: %s llama2.c tokenizer", path, size ? "truncated" : "empty file, not a");
    else if (put_pieces(&model, (const uint8_t *)data, size, path, &pieces)) {
        put_specs(&model, pieces);
        if (!model.failed)
            t = mm_tokenizer_from_memory(model.data, model.size, path);
    }
    free(model.data);
    free(data);
    return t;
}
