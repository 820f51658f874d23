#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "nn/safetensors.h"

struct nn_st_writer {
    char *path;
    cs_writer *file;
    json_t *header;
    uint64_t declared, written; /* bytes of data */
    bool streaming;             /* the header is out */
};

static void writer_free(nn_st_writer *w)
{
    json_decref(w->header);
    free(w->path);
    free(w);
}

nn_st_writer *nn_safetensors_create(const char *path)
{
    nn_st_writer *w = cs_alloc(1, sizeof *w, path);
    if (!w)
        return NULL;
    if (!(w->path = cs_strdup(path)) || !(w->file = cs_writer_open(path))) {
        writer_free(w);
        return NULL;
    }
    if (!(w->header = json_object())) {
        nn_safetensors_abort(w);
        return cs_fail("%s: out of memory for the header", path), NULL;
    }
    return w;
}

bool nn_safetensors_add_metadata(nn_st_writer *w, const char *key, const char *value)
{
    json_t *metadata = json_object_get(w->header, "__metadata__");
    if (!metadata) {
        metadata = json_object();
        if (json_object_set_new(w->header, "__metadata__", metadata) != 0)
            return cs_fail("%s: out of memory for the header", w->path);
    }
    if (json_object_set_new(metadata, key, json_string(value)) != 0)
        return cs_fail("%s: metadata '%s' is not UTF-8, or memory is out", w->path, key);
    return true;
}

bool nn_safetensors_declare(nn_st_writer *w, const char *name, enum nn_st_type type, int dims, const int64_t *shape)
{
    if (w->streaming)
        return cs_fail("%s: tensor '%s' declared after the first data", w->path, name);
    if (dims < 0 || dims > NN_ST_MAX_DIMS)
        return cs_fail("%s: tensor '%s': %d dimensions, not 0 to %d", w->path, name, dims, NN_ST_MAX_DIMS);
    if (!strcmp(name, "__metadata__") || json_object_get(w->header, name))
        return cs_fail("%s: tensor '%s': the name is taken", w->path, name);

    uint64_t bytes = nn_st_type_size(type), end;
    json_t *sizes = json_array();
    for (int i = 0; i < dims; i++) {
        if (shape[i] < 0 || __builtin_mul_overflow(bytes, (uint64_t)shape[i], &bytes)) {
            json_decref(sizes);
            return cs_fail("%s: tensor '%s': the shape is negative or exceeds 64 bits", w->path, name);
        }
        json_array_append_new(sizes, json_integer(shape[i]));
    }
    if (__builtin_add_overflow(w->declared, bytes, &end) || end > INT64_MAX) {
        json_decref(sizes);
        return cs_fail("%s: tensor '%s': the file would exceed 63 bits", w->path, name);
    }
    json_t *entry = json_pack("{s:s, s:o, s:[I, I]}", "dtype", nn_st_type_name(type), "shape", sizes, "data_offsets",
                              (json_int_t)w->declared, (json_int_t)end);
    if (json_object_set_new(w->header, name, entry) != 0)
        return cs_fail("%s: tensor '%s': the name is not UTF-8, or memory is out", w->path, name);
    w->declared = end;
    return true;
}

static bool write_header(nn_st_writer *w)
{
    char *text = json_dumps(w->header, JSON_COMPACT);
    if (!text)
        return cs_fail("%s: out of memory for the header", w->path);
    size_t length = strlen(text), padding = -length & 7;
    uint64_t total = length + padding;
    bool ok = cs_writer_put(w->file, &total, sizeof total) && cs_writer_put(w->file, text, length) &&
              cs_writer_put(w->file, "        ", padding);
    free(text);
    w->streaming = true;
    return ok;
}

bool nn_safetensors_put(nn_st_writer *w, const void *data, size_t bytes)
{
    if (!w->streaming && !write_header(w))
        return false;
    if (bytes > w->declared - w->written)
        return cs_fail("%s: more data than the declared tensors hold", w->path);
    w->written += bytes;
    return cs_writer_put(w->file, data, bytes);
}

bool nn_safetensors_commit(nn_st_writer *w)
{
    bool ok = w->streaming || write_header(w);
    if (ok && w->written != w->declared)
        ok = cs_fail("%s: %llu of %llu declared bytes written", w->path, (unsigned long long)w->written,
                     (unsigned long long)w->declared);
    if (!ok) {
        nn_safetensors_abort(w);
        return false;
    }
    ok = cs_writer_commit(w->file);
    writer_free(w);
    return ok;
}

void nn_safetensors_abort(nn_st_writer *w)
{
    if (!w)
        return;
    cs_writer_abort(w->file);
    writer_free(w);
}
