/* Files in the safetensors format: 8 bytes with the header's length (little-endian), a JSON header that gives each
 * tensor's type, shape and byte offsets, then the raw data. Everything in the header is distrusted; every error names
 * the file, and the tensor where there is one. Tensors are read one by one with pread(), so a large file costs no
 * memory. */
#ifndef NN_SAFETENSORS_H
#define NN_SAFETENSORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum nn_st_type {
    NN_ST_BOOL, NN_ST_U8, NN_ST_I8, NN_ST_F8_E4M3, NN_ST_F8_E5M2, NN_ST_U16, NN_ST_I16, NN_ST_F16, NN_ST_BF16,
    NN_ST_U32, NN_ST_I32, NN_ST_F32, NN_ST_U64, NN_ST_I64, NN_ST_F64,
    NN_ST_TYPES,
};

enum { NN_ST_MAX_DIMS = 8 };

typedef struct nn_st_tensor {
    char *name;
    enum nn_st_type type;
    int dims; /* 0: a scalar of one element */
    int64_t shape[NN_ST_MAX_DIMS];
    int64_t count;          /* elements */
    uint64_t offset, bytes; /* in the file */
} nn_st_tensor;

const char *nn_st_type_name(enum nn_st_type type); /* as in the header: "F32" */
size_t nn_st_type_size(enum nn_st_type type);

/* ---- reading ------------------------------------------------------------------------------------------------- */

typedef struct nn_safetensors nn_safetensors;

/* Opens the file and checks its whole header: at most 100 MB, begins with '{', no key twice, known types, sizes that
 * agree with shapes, data without holes or overlaps that ends where the file ends. NULL on failure. */
nn_safetensors *nn_safetensors_open(const char *path);
void nn_safetensors_close(nn_safetensors **st);
const char *nn_safetensors_path(const nn_safetensors *st);
/* Tensors in the header's order. */
size_t nn_safetensors_count(const nn_safetensors *st);
const nn_st_tensor *nn_safetensors_at(const nn_safetensors *st, size_t i);
/* NULL where there is none; not an error. */
const nn_st_tensor *nn_safetensors_find(const nn_safetensors *st, const char *name);
/* Like find, but absence, or another shape than `dims` and `shape`, is an error; dims < 0: any shape. */
const nn_st_tensor *nn_safetensors_need(const nn_safetensors *st, const char *name, int dims, const int64_t *shape);
/* Value of a key of "__metadata__", NULL where there is none. */
const char *nn_safetensors_metadata(const nn_safetensors *st, const char *key);

/* Reads all of a tensor into t->count elements (raw: t->bytes bytes). f32 and f64 accept F64, F32, F16 and BF16,
 * rounded to nearest where they do not fit; i32 accepts integers and booleans, and fails on a value outside int32_t. */
bool nn_safetensors_read(const nn_safetensors *st, const nn_st_tensor *t, void *raw);
bool nn_safetensors_read_f32(const nn_safetensors *st, const nn_st_tensor *t, float *out);
bool nn_safetensors_read_f64(const nn_safetensors *st, const nn_st_tensor *t, double *out);
bool nn_safetensors_read_i32(const nn_safetensors *st, const nn_st_tensor *t, int32_t *out);

/* ---- writing ------------------------------------------------------------------------------------------------- */

typedef struct nn_st_writer nn_st_writer;

/* A new file, which appears under `path` only at commit. Declare all metadata and tensors, then put the tensors' bytes
 * in the order of declaration, in pieces of any size. For aligned data declare 8-byte types before 4-byte ones and so
 * on. */
nn_st_writer *nn_safetensors_create(const char *path);
bool nn_safetensors_add_metadata(nn_st_writer *w, const char *key, const char *value);
bool nn_safetensors_declare(nn_st_writer *w, const char *name, enum nn_st_type type, int dims, const int64_t *shape);
bool nn_safetensors_put(nn_st_writer *w, const void *data, size_t bytes);
/* Fails, leaving an older file untouched, when fewer bytes were put than declared or the disk is full. Frees the
 * writer. */
bool nn_safetensors_commit(nn_st_writer *w);
/* Drops what was written, and the writer. NULL is fine. */
void nn_safetensors_abort(nn_st_writer *w);

#endif
