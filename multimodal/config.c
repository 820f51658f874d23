#include "multimodal/config.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/file.h"

static const char *const turns_names[] = {"conversation", "isolated", NULL};
static const char *const fit_names[] = {"pad", "crop", "squash", NULL};
static const char *const precision_names[] = {"f32", "bf16", "f16", NULL};
static const char *const schedule_names[] = {"constant", "linear", "cosine", NULL};

#define TOP(key, type, member, min, max, fallback, doc, ...) \
    {key, type, CS_MEMBER(mm_config, member), min, max, fallback, doc, ##__VA_ARGS__}
static const cs_field top_fields[] = {
    TOP("seed", CS_INT, seed, 0, 9e15, "1",
        "of initial values, order of the data, competition schedule; same seed and device, same bits"),
};

#define DATA(key, type, member, min, max, fallback, doc, ...) \
    {key, type, CS_MEMBER(mm_data_config, member), min, max, fallback, doc, ##__VA_ARGS__}
static const cs_field data_fields[] = {
    DATA("train", CS_STRING, train, 0, 0, "null",
         "training data in LLaVA's format, JSON or JSON lines; a path seen from the current folder"),
    DATA("image_root", CS_STRING, image_root, 0, 0, "null",
         "folder that pictures' paths start from; null: the data file's own"),
    DATA("tokenizer", CS_STRING, tokenizer, 0, 0, "null", "SentencePiece model file; copied into every checkpoint"),
    DATA("template", CS_STRING, conversation, 0, 0, "\"plain\"", "conversation template: plain, vicuna_v1 or phi3"),
    DATA("turns", CS_ENUM, turns, 0, 0, "\"conversation\"",
         "how a sample's turns see each other: conversation (each sees the earlier ones) or isolated (each sees the "
         "picture and itself only, for the price of one picture)",
         turns_names),
    DATA("max_tokens", CS_INT, max_tokens, 0, 1 << 20, "0",
         "most tokens of a sample, its picture's included; later turns are dropped first; 0: no limit"),
    DATA("fit", CS_ENUM, fit, 0, 0, "\"pad\"",
         "how a picture becomes a square: pad (LLaVA), crop (CLIP) or squash (SigLIP)", fit_names),
    DATA("mean", CS_FLOATS, mean, -10, 10, "[0.5, 0.5, 0.5]", "subtracted from the channels (0..1)"),
    DATA("std", CS_FLOATS, std, 1e-6, 100, "[0.5, 0.5, 0.5]", "the channels are divided by it"),
    DATA("flip_x", CS_BOOL, flip_x, 0, 0, "false",
         "mirror pictures left to right with probability 1/2; not where questions speak of left and right"),
    DATA("flip_y", CS_BOOL, flip_y, 0, 0, "false", "mirror pictures top to bottom with probability 1/2"),
    DATA("shift", CS_INT, shift, 0, 1024, "0", "shift pictures cyclically by up to so many pixels"),
    DATA("group_by_length", CS_BOOL, group_by_length, 0, 0, "true",
         "batches of samples of like length, so that little is padded"),
    DATA("skip_bad", CS_BOOL, skip_bad, 0, 0, "false", "skip and count unreadable samples instead of stopping"),
    DATA("prefetch", CS_INT, prefetch, 1, 64, "4", "batches made ready in advance"),
    DATA("cache_mib", CS_INT, cache_mib, 0, 1 << 20, "256", "memory for decoded pictures, in MiB"),
};

#define PROJECTOR(key, type, member, min, max, fallback, doc, ...) \
    {key, type, CS_MEMBER(mm_projector_config, member), min, max, fallback, doc, ##__VA_ARGS__}
static const cs_field projector_fields[] = {
    PROJECTOR("hidden", CS_INT, hidden, 0, 1 << 20, "0", "inner width; 0: `text.width`"),
    PROJECTOR("activation", CS_ENUM, ffn, 0, 0, "\"gelu\"", "between its two layers", nn_ffn_names),
    PROJECTOR("norm", CS_BOOL, norm, 0, 0, "false", "LayerNorm in front"),
};

#define COMPETITION(key, type, member, min, max, fallback, doc, ...) \
    {key, type, CS_MEMBER(mm_competition_config, member), min, max, fallback, doc, ##__VA_ARGS__}
static const cs_field competition_fields[] = {
    COMPETITION("rate", CS_FLOAT, rate, 0, 1, "0.05",
                "share of the steps after the warm-up at which a mixture competes (the authors' rate_flip)"),
    COMPETITION("warmup", CS_FLOAT, warmup, 0, 1, "0.05",
                "share of all steps before the first competition (the authors' warm_up)"),
    COMPETITION("max_layers", CS_INT, max_layers, 1, 4096, "3",
                "most mixtures that compete at one step (the authors' max_compete_in_iter)"),
};

#define TRAIN(key, type, member, min, max, fallback, doc, ...) \
    {key, type, CS_MEMBER(mm_train_config, member), min, max, fallback, doc, ##__VA_ARGS__}
static const cs_field train_fields[] = {
    TRAIN("steps", CS_INT, steps, 0, 1e12, "0", "optimizer steps; 0: by `epochs`"),
    TRAIN("epochs", CS_INT, epochs, 1, 1000000, "1", "passes over the data where `steps` is 0"),
    TRAIN("batch", CS_INT, batch, 1, 65536, "32", "samples per micro-batch"),
    TRAIN("accumulate", CS_INT, accumulate, 1, 65536, "1", "micro-batches per optimizer step"),
    TRAIN("lr", CS_FLOAT, lr, 0, 10, "1e-3", "peak learning rate"),
    TRAIN("min_lr_ratio", CS_FLOAT, min_lr_ratio, 0, 1, "0", "share of the peak that is left at the end"),
    TRAIN("warmup", CS_FLOAT, warmup, 0, 1, "0.03", "share of the steps with a rising learning rate"),
    TRAIN("schedule", CS_ENUM, schedule, 0, 0, "\"cosine\"", "of the learning rate after the warm-up", schedule_names),
    TRAIN("weight_decay", CS_FLOAT, weight_decay, 0, 10, "0",
          "AdamW's decoupled decay of matrices; norms and biases have none"),
    TRAIN("beta1", CS_FLOAT, beta1, 0, 0.999999, "0.9", "AdamW's decay of the first moment"),
    TRAIN("beta2", CS_FLOAT, beta2, 0, 0.9999999, "0.999", "AdamW's decay of the second moment"),
    TRAIN("eps", CS_FLOAT, eps, 1e-20, 1, "1e-8", "AdamW's epsilon"),
    TRAIN("clip", CS_FLOAT, clip, 0, 1e9, "1",
          "global gradient norm above which gradients are scaled down to it; 0: off"),
    TRAIN("precision", CS_ENUM, precision, 0, 0, "\"f32\"",
          "in which activations, their gradients and the operands of matrix products are stored: f32, bf16 or f16. "
          "Weights, sums and statistics are f32 always, as are checkpoints",
          precision_names),
    TRAIN("loss_scale", CS_FLOAT, loss_scale, 1, 16777216, "65536",
          "with f16, factor of the loss in the backward pass at the start; halved when gradients overflow, which skips "
          "the step"),
    TRAIN("loss_scale_growth", CS_INT, loss_scale_growth, 1, 1 << 30, "2000",
          "steps in a row without overflow after which the loss scale doubles"),
    TRAIN("recompute", CS_BOOL, recompute, 0, 0, "false",
          "recompute each layer's activations in the backward pass instead of keeping them"),
    TRAIN("freeze", CS_STRING, freeze, 0, 0, "null",
          "parameters that are not trained: prefixes of names, separated by commas, as in \"vision,text\""),
    TRAIN("save_every", CS_INT, save_every, 0, 1 << 30, "0", "steps between checkpoints; 0: one at the end"),
    TRAIN("keep", CS_INT, keep, 1, 1 << 20, "1", "checkpoints kept; older ones are removed"),
    TRAIN("log_every", CS_INT, log_every, 1, 1 << 20, "20",
          "steps between lines on the terminal; log.jsonl has every step"),
};

#define COUNT(fields) (sizeof(fields) / sizeof *(fields))

static void bind(mm_config *c)
{
    const cs_section sections[] = {
        {"", "Keys of the outermost object.", top_fields, COUNT(top_fields), c},
        {"data", "What is read and how it becomes tokens.", data_fields, COUNT(data_fields), &c->data},
        {"vision", "The vision tower.", mm_vision_fields, mm_vision_field_count, &c->vision},
        {"vision.moe", "Mixtures of experts in place of the tower's feed-forward blocks.", nn_moe_fields,
         nn_moe_field_count, &c->vision_moe},
        {"projector", "Two layers from the tower's width to the decoder's.", projector_fields, COUNT(projector_fields),
         &c->projector},
        {"projector.moe", "One mixture of experts in place of the projector.", nn_moe_fields, nn_moe_field_count,
         &c->projector_moe},
        {"text", "The decoder language model.", mm_decoder_fields, mm_decoder_field_count, &c->text},
        {"text.moe",
         "Mixtures of experts in place of the decoder's feed-forward blocks. The rows that pad a batch's shorter "
         "samples are routed, too, and count in the losses and loads; `data.group_by_length` keeps them few.",
         nn_moe_fields, nn_moe_field_count, &c->text_moe},
        {"competition", "When mixtures compete; drawn once, stored in the checkpoint.", competition_fields,
         COUNT(competition_fields), &c->competition},
        {"train", "The training run.", train_fields, COUNT(train_fields), &c->train},
    };
    _Static_assert(sizeof sections == sizeof c->sections, "a table without its place");
    memcpy(c->sections, sections, sizeof sections);
    c->tables = (cs_config){c->sections, COUNT(sections)};
}

static bool check_config(const mm_config *c, const char *where)
{
    if (c->text.open_prefix && c->data.turns == MM_TURNS_CONVERSATION)
        return cs_fail("%s: text.open_prefix needs data.turns \"isolated\": in a conversation answers are part of the "
                       "prefix and would see themselves",
                       where);
    if (!mm_template_find(c->data.conversation))
        return cs_fail_in("%s: data.template", where);
    return true;
}

enum nn_dtype mm_config_precision(const mm_config *c)
{
    static const enum nn_dtype type[] = {NN_F32, NN_BF16, NN_F16};
    return type[c->train.precision];
}

bool mm_config_read(mm_config *c, const char *path, const char *const *sets, size_t set_count)
{
    memset(c, 0, sizeof *c);
    bind(c);
    return cs_config_read(&c->tables, path, sets, set_count) && check_config(c, path ? path : "configuration");
}

bool mm_config_parse(mm_config *c, const char *name, const char *text, const char *const *sets, size_t set_count)
{
    memset(c, 0, sizeof *c);
    bind(c);
    return cs_config_parse(&c->tables, name, text, strlen(text), sets, set_count) && check_config(c, name);
}

void mm_config_release(mm_config *c)
{
    if (c->tables.sections)
        cs_config_release(&c->tables);
}

bool mm_config_write(const mm_config *c, const char *path)
{
    cs_writer *w = cs_writer_open(path);
    if (!w)
        return false;
    cs_config_write(&c->tables, cs_writer_stream(w));
    return cs_writer_commit(w);
}

bool mm_config_describe(FILE *out)
{
    mm_config c = {0};
    bind(&c);
    fputs("# Configuration\n\n"
          "A run is one JSON file: `csmoe train CONFIG.json --out RUN`. Every key is below; a key that is left out has "
          "its default, an\n"
          "unknown one is an error that names the nearest. Keys stand in nested objects (`\"vision\": {\"moe\": "
          "{\"experts\": 4}}`) and on the\n"
          "command line with dots (`--set vision.moe.experts=4`). Every checkpoint holds the complete configuration it "
          "was trained with.\n"
          "This page is printed by `csmoe train --describe-config`.\n\n",
          out);
    cs_config_describe(&c.tables, out);
    return !ferror(out) || cs_fail("cannot write the reference");
}

bool mm_config_format(const mm_config *c, const mm_tokenizer *tokenizer, mm_format *f)
{
    *f = (mm_format){
        .tokenizer = tokenizer,
        .conversation = mm_template_find(c->data.conversation),
        .turns = (mm_turns_mode)c->data.turns,
        .picture = {.size = c->vision.size, .patch = c->vision.patch, .fit = (enum mm_fit)c->data.fit},
        .max_tokens = c->data.max_tokens,
    };
    memcpy(f->picture.mean, c->data.mean, sizeof f->picture.mean);
    memcpy(f->picture.std, c->data.std, sizeof f->picture.std);
    return f->conversation;
}
