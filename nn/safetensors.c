#include "nn/safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/half.h"
#include "base/memory.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "safetensors are little-endian, and so must the host be"
#endif

enum { MAX_HEADER = 100000000, CHUNK = 65536 };

static const struct {
    const char *name;
    size_t size;
} types[NN_ST_TYPES] = {
    [NN_ST_BOOL] = {"BOOL", 1}, [NN_ST_U8] = {"U8", 1},           [NN_ST_I8] = {"I8", 1},
    [NN_ST_F8_E4M3] = {"F8_E4M3", 1}, [NN_ST_F8_E5M2] = {"F8_E5M2", 1},
    [NN_ST_U16] = {"U16", 2},   [NN_ST_I16] = {"I16", 2},         [NN_ST_F16] = {"F16", 2}, [NN_ST_BF16] = {"BF16", 2},
    [NN_ST_U32] = {"U32", 4},   [NN_ST_I32] = {"I32", 4},         [NN_ST_F32] = {"F32", 4},
    [NN_ST_U64] = {"U64", 8},   [NN_ST_I64] = {"I64", 8},         [NN_ST_F64] = {"F64", 8},
};

const char *nn_st_type_name(enum nn_st_type type)
{
    return types[type].name;
}

size_t nn_st_type_size(enum nn_st_type type)
{
    return types[type].size;
}

struct nn_safetensors {
    char *path;
    int fd;
    uint64_t data_start, data_bytes;
    json_t *header;
    nn_st_tensor *tensors;
    size_t count;
};

/* ---- the header -------------------------------------------------------------------------------------------------- */

static bool read_at(const nn_safetensors *st, void *out, size_t bytes, uint64_t offset)
{
    for (size_t done = 0; done < bytes;) {
        ssize_t n = pread(st->fd, (char *)out + done, bytes - done, (off_t)(offset + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return cs_fail("%s: cannot read: %s", st->path, n < 0 ? strerror(errno) : "the file became shorter");
        done += (size_t)n;
    }
    return true;
}

static bool load_header(nn_safetensors *st)
{
    struct stat info;
    if (fstat(st->fd, &info) != 0)
        return cs_fail("%s: cannot read: %s", st->path, strerror(errno));
    if (!S_ISREG(info.st_mode))
        return cs_fail("%s: is not a plain file", st->path);
    uint64_t size = (uint64_t)info.st_size, length = 0;
    if (size < 8)
        return cs_fail("%s: %llu bytes are too short for a safetensors file", st->path, (unsigned long long)size);
    if (!read_at(st, &length, 8, 0))
        return false;
    if (length > MAX_HEADER)
        return cs_fail("%s: header of %llu bytes, more than the %d accepted (is it a safetensors file?)", st->path,
                       (unsigned long long)length, MAX_HEADER);
    if (length > size - 8)
        return cs_fail("%s: header of %llu bytes in a file of %llu: truncated", st->path, (unsigned long long)length,
                       (unsigned long long)size);
    st->data_start = 8 + length;
    st->data_bytes = size - st->data_start;

    char *text = cs_alloc((size_t)length + 1, 1, st->path);
    if (!text)
        return false;
    json_error_t error;
    if (read_at(st, text, (size_t)length, 8)) {
        if (text[0] != '{')
            cs_fail("%s: the header does not begin with '{'", st->path);
        else if (!(st->header = json_loadb(text, (size_t)length, JSON_REJECT_DUPLICATES, &error)))
            cs_fail("%s: header, byte %d: %s", st->path, error.position, error.text);
    }
    free(text);
    return st->header != NULL;
}

static bool parse_metadata(const nn_safetensors *st, json_t *metadata)
{
    if (!json_is_object(metadata))
        return cs_fail("%s: __metadata__ is not an object", st->path);
    const char *key;
    json_t *value;
    json_object_foreach (metadata, key, value)
        if (!json_is_string(value))
            return cs_fail("%s: __metadata__: the value of '%s' is not a string", st->path, key);
    return true;
}

static bool parse_shape(const nn_safetensors *st, nn_st_tensor *t, json_t *shape)
{
    if (!json_is_array(shape))
        return cs_fail("%s: tensor '%s': no shape", st->path, t->name);
    if (json_array_size(shape) > NN_ST_MAX_DIMS)
        return cs_fail("%s: tensor '%s': %zu dimensions, more than the %d that are supported", st->path, t->name,
                       json_array_size(shape), NN_ST_MAX_DIMS);
    t->dims = (int)json_array_size(shape);
    t->count = 1;
    for (int i = 0; i < t->dims; i++) {
        json_t *value = json_array_get(shape, (size_t)i);
        t->shape[i] = json_integer_value(value);
        if (!json_is_integer(value) || t->shape[i] < 0)
            return cs_fail("%s: tensor '%s': a size in its shape is not a whole number >= 0", st->path, t->name);
        if (__builtin_mul_overflow(t->count, t->shape[i], &t->count))
            return cs_fail("%s: tensor '%s': the shape's elements exceed 64 bits", st->path, t->name);
    }
    return true;
}

static bool parse_tensor(const nn_safetensors *st, nn_st_tensor *t, json_t *entry)
{
    if (!json_is_object(entry))
        return cs_fail("%s: tensor '%s': its entry is not an object", st->path, t->name);
    const char *type = json_string_value(json_object_get(entry, "dtype"));
    if (!type)
        return cs_fail("%s: tensor '%s': no dtype", st->path, t->name);
    t->type = 0;
    while (t->type < NN_ST_TYPES && strcmp(types[t->type].name, type) != 0)
        t->type++;
    if (t->type == NN_ST_TYPES)
        return cs_fail("%s: tensor '%s': unknown dtype '%s'", st->path, t->name, type);
    if (!parse_shape(st, t, json_object_get(entry, "shape")))
        return false;

    json_t *offsets = json_object_get(entry, "data_offsets");
    json_t *from = json_array_get(offsets, 0), *to = json_array_get(offsets, 1);
    if (json_array_size(offsets) != 2 || !json_is_integer(from) || !json_is_integer(to))
        return cs_fail("%s: tensor '%s': data_offsets are not two whole numbers", st->path, t->name);
    json_int_t begin = json_integer_value(from), end = json_integer_value(to);
    if (begin < 0 || end < begin || (uint64_t)end > st->data_bytes)
        return cs_fail("%s: tensor '%s': data_offsets %lld..%lld lie outside the %llu bytes of data", st->path, t->name,
                       (long long)begin, (long long)end, (unsigned long long)st->data_bytes);
    t->offset = st->data_start + (uint64_t)begin;
    t->bytes = (uint64_t)(end - begin);
    uint64_t wanted;
    if (__builtin_mul_overflow((uint64_t)t->count, types[t->type].size, &wanted) || wanted != t->bytes)
        return cs_fail("%s: tensor '%s': %llu bytes of data do not hold %lld elements of %s", st->path, t->name,
                       (unsigned long long)t->bytes, (long long)t->count, type);
    return true;
}

static int by_offset(const void *a, const void *b)
{
    const nn_st_tensor *x = *(nn_st_tensor *const *)a, *y = *(nn_st_tensor *const *)b;
    if (x->offset != y->offset)
        return x->offset < y->offset ? -1 : 1;
    return (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

/* The data must be the tensors one after the other: no holes (which could hide anything), no overlaps, no
 * bytes behind. */
static bool check_contiguous(const nn_safetensors *st)
{
    nn_st_tensor **sorted = cs_alloc(st->count, sizeof *sorted, st->path);
    if (!sorted)
        return false;
    for (size_t i = 0; i < st->count; i++)
        sorted[i] = &st->tensors[i];
    qsort(sorted, st->count, sizeof *sorted, by_offset);
    uint64_t end = st->data_start;
    bool ok = true;
    for (size_t i = 0; ok && i < st->count; i++) {
        if (sorted[i]->offset != end)
            ok = cs_fail("%s: tensor '%s': its data %s", st->path, sorted[i]->name,
                         sorted[i]->offset > end ? "begin after a hole" : "overlap those of another tensor");
        end = sorted[i]->offset + sorted[i]->bytes;
    }
    free(sorted);
    if (ok && end != st->data_start + st->data_bytes)
        ok = cs_fail("%s: %llu bytes behind the last tensor", st->path,
                     (unsigned long long)(st->data_start + st->data_bytes - end));
    return ok;
}

static bool parse_header(nn_safetensors *st)
{
    st->tensors = cs_alloc(json_object_size(st->header), sizeof *st->tensors, st->path);
    if (!st->tensors)
        return false;
    const char *name;
    json_t *entry;
    json_object_foreach (st->header, name, entry) {
        if (!strcmp(name, "__metadata__")) {
            if (!parse_metadata(st, entry))
                return false;
            continue;
        }
        nn_st_tensor *t = &st->tensors[st->count];
        if (!(t->name = cs_strdup(name)))
            return false;
        st->count++;
        if (!parse_tensor(st, t, entry))
            return false;
    }
    return check_contiguous(st);
}

nn_safetensors *nn_safetensors_open(const char *path)
{
    nn_safetensors *st = cs_alloc(1, sizeof *st, path);
    if (!st)
        return NULL;
    st->fd = -1;
    bool ok = (st->path = cs_strdup(path)) != NULL;
    if (ok && (st->fd = open(path, O_RDONLY | O_CLOEXEC)) < 0)
        ok = cs_fail("%s: cannot open: %s", path, strerror(errno));
    if (!ok || !load_header(st) || !parse_header(st))
        nn_safetensors_close(&st);
    return st;
}

void nn_safetensors_close(nn_safetensors **st)
{
    if (!*st)
        return;
    for (size_t i = 0; i < (*st)->count; i++)
        free((*st)->tensors[i].name);
    free((*st)->tensors);
    json_decref((*st)->header);
    if ((*st)->fd >= 0)
        close((*st)->fd);
    free((*st)->path);
    free(*st);
    *st = NULL;
}

/* ---- looking up -------------------------------------------------------------------------------------------------- */

const char *nn_safetensors_path(const nn_safetensors *st)
{
    return st->path;
}

size_t nn_safetensors_count(const nn_safetensors *st)
{
    return st->count;
}

const nn_st_tensor *nn_safetensors_at(const nn_safetensors *st, size_t i)
{
    return &st->tensors[i];
}

const nn_st_tensor *nn_safetensors_find(const nn_safetensors *st, const char *name)
{
    for (size_t i = 0; i < st->count; i++)
        if (!strcmp(st->tensors[i].name, name))
            return &st->tensors[i];
    return NULL;
}

static void shape_text(char *text, size_t size, int dims, const int64_t *shape)
{
    size_t n = (size_t)snprintf(text, size, "[");
    for (int i = 0; i < dims && n < size; i++)
        n += (size_t)snprintf(text + n, size - n, "%s%lld", i ? ", " : "", (long long)shape[i]);
    if (n < size)
        snprintf(text + n, size - n, "]");
}

const nn_st_tensor *nn_safetensors_need(const nn_safetensors *st, const char *name, int dims, const int64_t *shape)
{
    const nn_st_tensor *t = nn_safetensors_find(st, name);
    if (!t)
        return cs_fail("%s: no tensor '%s'", st->path, name), NULL;
    if (dims < 0 || (t->dims == dims && !memcmp(t->shape, shape, (size_t)dims * sizeof *shape)))
        return t;
    char has[128], wanted[128];
    shape_text(has, sizeof has, t->dims, t->shape);
    shape_text(wanted, sizeof wanted, dims, shape);
    return cs_fail("%s: tensor '%s': its shape is %s, wanted %s", st->path, name, has, wanted), NULL;
}

const char *nn_safetensors_metadata(const nn_safetensors *st, const char *key)
{
    return json_string_value(json_object_get(json_object_get(st->header, "__metadata__"), key));
}

/* ---- reading values ---------------------------------------------------------------------------------------------- */

bool nn_safetensors_read(const nn_safetensors *st, const nn_st_tensor *t, void *raw)
{
    return read_at(st, raw, (size_t)t->bytes, t->offset) || cs_fail_in("tensor '%s'", t->name);
}

/* Stores element i of `raw` at out[i]; false where the type is of the wrong kind or the value does not fit. */
typedef bool store_fn(enum nn_st_type type, const void *raw, size_t i, void *out);

static bool store_f64(enum nn_st_type type, const void *raw, size_t i, void *out)
{
    double *to = (double *)out + i;
    switch (type) {
    case NN_ST_F64: *to = ((const double *)raw)[i]; return true;
    case NN_ST_F32: *to = ((const float *)raw)[i]; return true;
    case NN_ST_F16: *to = cs_f16_value(((const uint16_t *)raw)[i]); return true;
    case NN_ST_BF16: *to = cs_bf16_value(((const uint16_t *)raw)[i]); return true;
    default: return cs_fail("is not of a floating-point type that can be read");
    }
}

static bool store_f32(enum nn_st_type type, const void *raw, size_t i, void *out)
{
    double value[1] = {0};
    if (!store_f64(type, (const char *)raw + i * types[type].size, 0, value))
        return false;
    ((float *)out)[i] = (float)value[0];
    return true;
}

static bool store_i32(enum nn_st_type type, const void *raw, size_t i, void *out)
{
    int64_t value;
    switch (type) {
    case NN_ST_BOOL:
    case NN_ST_U8: value = ((const uint8_t *)raw)[i]; break;
    case NN_ST_I8: value = ((const int8_t *)raw)[i]; break;
    case NN_ST_U16: value = ((const uint16_t *)raw)[i]; break;
    case NN_ST_I16: value = ((const int16_t *)raw)[i]; break;
    case NN_ST_U32: value = ((const uint32_t *)raw)[i]; break;
    case NN_ST_I32: value = ((const int32_t *)raw)[i]; break;
    case NN_ST_U64: /* one beyond INT64_MAX reads as negative: as far out of range */
    case NN_ST_I64: value = ((const int64_t *)raw)[i]; break;
    default: return cs_fail("is not of an integer type");
    }
    if (value < INT32_MIN || value > INT32_MAX || (type == NN_ST_U64 && value < 0))
        return cs_fail("element %zu does not fit 32 bits", i);
    ((int32_t *)out)[i] = (int32_t)value;
    return true;
}

static bool read_converted(const nn_safetensors *st, const nn_st_tensor *t, void *out, size_t out_size, store_fn *store)
{
    uint64_t raw[CHUNK / sizeof(uint64_t)];
    size_t size = types[t->type].size, per_chunk = CHUNK / size;
    for (size_t done = 0; done < (size_t)t->count;) {
        size_t n = (size_t)t->count - done < per_chunk ? (size_t)t->count - done : per_chunk;
        if (!read_at(st, raw, n * size, t->offset + done * size))
            return cs_fail_in("tensor '%s'", t->name);
        for (size_t i = 0; i < n; i++)
            if (!store(t->type, raw, i, (char *)out + done * out_size))
                return cs_fail_in("%s: tensor '%s' (%s)", st->path, t->name, types[t->type].name);
        done += n;
    }
    return true;
}

bool nn_safetensors_read_f32(const nn_safetensors *st, const nn_st_tensor *t, float *out)
{
    return t->type == NN_ST_F32 ? nn_safetensors_read(st, t, out) : read_converted(st, t, out, sizeof *out, store_f32);
}

bool nn_safetensors_read_f64(const nn_safetensors *st, const nn_st_tensor *t, double *out)
{
    return read_converted(st, t, out, sizeof *out, store_f64);
}

bool nn_safetensors_read_i32(const nn_safetensors *st, const nn_st_tensor *t, int32_t *out)
{
    return read_converted(st, t, out, sizeof *out, store_i32);
}
