#include "multimodal/tokenizer.h"

#include <sentencepiece_processor.h>
#include <sentencepiece_trainer.h>

#include <cstdlib>
#include <cstring>
#include <exception>
#include <string>
#include <unordered_map>
#include <vector>

extern "C" {
#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
}

struct mm_tokenizer {
    sentencepiece::SentencePieceProcessor processor;
    std::string model;
};

namespace
{

/* Runs `body`; an exception becomes an error about `what` and the value `failed`. */
template <typename Result, typename Body> Result guarded(const char *what, Result failed, Body body) noexcept
{
    try {
        return body();
    } catch (const std::bad_alloc &) {
        cs_fail("%s: out of memory", what);
    } catch (const std::exception &e) {
        cs_fail("%s: %s", what, e.what());
    } catch (...) {
        cs_fail("%s: unknown failure of SentencePiece", what);
    }
    return failed;
}

/* Sentences of the caller, one after the other. */
class Sentences : public sentencepiece::SentenceIterator
{
  public:
    Sentences(const char *const *items, size_t count) : items_(items), count_(count)
    {
        take();
    }
    bool done() const override
    {
        return at_ >= count_;
    }
    void Next() override
    {
        at_++;
        take();
    }
    const std::string &value() const override
    {
        return current_;
    }
    sentencepiece::util::Status status() const override
    {
        return {};
    }

  private:
    void take()
    {
        if (!done())
            current_ = items_[at_];
    }
    const char *const *items_;
    size_t count_, at_ = 0;
    std::string current_;
};

/* SentencePiece reads the list as CSV. */
std::string quoted_list(const char *const *items, size_t count)
{
    std::string list;
    for (size_t i = 0; i < count; i++) {
        list += i ? ",\"" : "\"";
        for (const char *p = items[i]; *p; p++)
            list += *p == '"' ? std::string("\"\"") : std::string(1, *p);
        list += '"';
    }
    return list;
}

const char *type_name(enum mm_model_type type)
{
    switch (type) {
    case MM_MODEL_BPE:
        return "bpe";
    case MM_MODEL_WORD:
        return "word";
    case MM_MODEL_CHAR:
        return "char";
    case MM_MODEL_UNIGRAM:
        break;
    }
    return "unigram";
}

std::unordered_map<std::string, std::string> trainer_arguments(const mm_tokenizer_options *o)
{
    std::unordered_map<std::string, std::string> a = {
        {"model_type", type_name(o->type)},
        {"vocab_size", std::to_string(o->vocabulary)},
        {"hard_vocab_limit", "false"},
        {"character_coverage", std::to_string(o->coverage > 0 ? o->coverage : 1.0)},
        {"byte_fallback", o->byte_fallback ? "true" : "false"},
        {"normalization_rule_name", "identity"},
        {"remove_extra_whitespaces", "false"},
        {"max_sentence_length", "1073741824"},
        {"num_threads", "1"},
        {"unk_id", "0"},
        {"bos_id", "1"},
        {"eos_id", "2"},
        {"pad_id", "3"},
        {"minloglevel", "3"},
    };
    if (o->symbol_count)
        a["user_defined_symbols"] = quoted_list(o->symbols, o->symbol_count);
    return a;
}

/* What SentencePiece would end the process over is refused here. */
bool check_training(const char *const *sentences, size_t count, const mm_tokenizer_options *o)
{
    const size_t fixed = 4 + o->symbol_count + (o->byte_fallback ? 256 : 0);
    if (o->vocabulary < 1 || (size_t)o->vocabulary <= fixed)
        return cs_fail("training a tokenizer: a vocabulary of %d is too small: %zu ids are taken by special pieces%s",
                       o->vocabulary, fixed, o->byte_fallback ? " and bytes" : "");
    if (o->coverage != 0 && !(o->coverage >= 0.98 && o->coverage <= 1))
        return cs_fail("training a tokenizer: a character coverage of %g is not within 0.98..1", o->coverage);
    for (size_t i = 0; i < o->symbol_count; i++)
        if (!*o->symbols[i])
            return cs_fail("training a tokenizer: symbol %zu is empty", i + 1);
    for (size_t i = 0; i < count; i++)
        if (sentences[i][strspn(sentences[i], " \t\r\n")])
            return true;
    return cs_fail("training a tokenizer: there is no text to learn from");
}

} // namespace

mm_tokenizer *mm_tokenizer_from_memory(const void *data, size_t size, const char *name)
{
    if (size == 0)
        return cs_fail("%s: empty file, not a SentencePiece model", name), nullptr;
    if (size > MM_TOKENIZER_MAX_BYTES)
        return cs_fail("%s: %zu bytes are too many for a SentencePiece model", name, size), nullptr;
    mm_tokenizer *t = nullptr;
    bool ok = guarded(name, false, [&] {
        t = new mm_tokenizer;
        t->model.assign(static_cast<const char *>(data), size);
        auto status = t->processor.LoadFromSerializedProto(t->model);
        return status.ok() || cs_fail("%s: not a SentencePiece model, or a damaged one: %s", name, status.message());
    });
    if (ok && t->processor.unk_id() >= 0)
        return t;
    if (ok)
        cs_fail("%s: not a SentencePiece model: it has no piece for the unknown", name);
    mm_tokenizer_free(t);
    return nullptr;
}

mm_tokenizer *mm_tokenizer_load(const char *path)
{
    size_t size;
    char *data = cs_read_file(path, MM_TOKENIZER_MAX_BYTES, &size);
    mm_tokenizer *t = data ? mm_tokenizer_from_memory(data, size, path) : nullptr;
    free(data);
    return t;
}

void mm_tokenizer_free(mm_tokenizer *t)
{
    delete t;
}

int mm_tokenizer_size(const mm_tokenizer *t)
{
    return t->processor.GetPieceSize();
}

int mm_tokenizer_unk(const mm_tokenizer *t)
{
    return t->processor.unk_id();
}

int mm_tokenizer_bos(const mm_tokenizer *t)
{
    return t->processor.bos_id();
}

int mm_tokenizer_eos(const mm_tokenizer *t)
{
    return t->processor.eos_id();
}

int mm_tokenizer_pad(const mm_tokenizer *t)
{
    return t->processor.pad_id();
}

bool mm_tokenizer_encode(const mm_tokenizer *t, const char *text, size_t length, int32_t **ids, size_t *count)
{
    *ids = nullptr;
    *count = 0;
    return guarded("encoding text", false, [&] {
        std::vector<int> found;
        auto status = t->processor.Encode(absl::string_view(text, length), &found);
        if (!status.ok())
            return cs_fail("encoding text: %s", status.message());
        auto *copy = static_cast<int32_t *>(cs_alloc(found.size(), sizeof(int32_t), "token ids"));
        if (!copy)
            return false;
        for (size_t i = 0; i < found.size(); i++)
            copy[i] = found[i];
        *ids = copy;
        *count = found.size();
        return true;
    });
}

char *mm_tokenizer_decode(const mm_tokenizer *t, const int32_t *ids, size_t count, size_t *length)
{
    for (size_t i = 0; i < count; i++)
        if (ids[i] < 0 || ids[i] >= mm_tokenizer_size(t))
            return cs_fail("decoding ids: id %d is outside the vocabulary of %d", ids[i], mm_tokenizer_size(t)),
                   nullptr;
    return guarded<char *>("decoding ids", nullptr, [&]() -> char * {
        std::string text;
        auto status = t->processor.Decode(std::vector<int>(ids, ids + count), &text);
        if (!status.ok())
            return cs_fail("decoding ids: %s", status.message()), nullptr;
        char *copy = static_cast<char *>(cs_alloc(text.size() + 1, 1, "decoded text"));
        if (copy)
            memcpy(copy, text.data(), text.size());
        if (length)
            *length = text.size();
        return copy;
    });
}

const char *mm_tokenizer_piece(const mm_tokenizer *t, int id)
{
    if (id < 0 || id >= mm_tokenizer_size(t))
        return cs_fail("id %d is outside the vocabulary of %d", id, mm_tokenizer_size(t)), nullptr;
    return t->processor.IdToPiece(id).c_str();
}

int mm_tokenizer_id(const mm_tokenizer *t, const char *piece)
{
    /* SentencePiece answers with the unknown's id where it has no such piece. */
    int id = t->processor.PieceToId(piece);
    return id >= 0 && id < mm_tokenizer_size(t) && t->processor.IdToPiece(id) == piece ? id : -1;
}

const void *mm_tokenizer_model(const mm_tokenizer *t, size_t *size)
{
    *size = t->model.size();
    return t->model.data();
}

mm_tokenizer *mm_tokenizer_train(const char *const *sentences, size_t count, const mm_tokenizer_options *options)
{
    if (!check_training(sentences, count, options))
        return nullptr;
    return guarded<mm_tokenizer *>("training a tokenizer", nullptr, [&]() -> mm_tokenizer * {
        Sentences text(sentences, count);
        std::string model;
        auto status = sentencepiece::SentencePieceTrainer::Train(trainer_arguments(options), &text, &model);
        if (!status.ok())
            return cs_fail("training a tokenizer: %s", status.message()), nullptr;
        return mm_tokenizer_from_memory(model.data(), model.size(), "the trained tokenizer");
    });
}
