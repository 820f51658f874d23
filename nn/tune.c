#include "nn/tune.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"

typedef struct choice {
    nn_bench_product product;
    const char *variant; /* from the table of variants */
} choice;

/* A device's choices; lives as long as the device. */
typedef struct tuning {
    choice *items;
    size_t count, capacity;
} tuning;

static void release(void *data)
{
    tuning *t = data;
    free(t->items);
    free(t);
}

static uint32_t round_up(uint32_t tokens)
{
    uint32_t power = 1;
    while (power < tokens && power < 1u << 31)
        power *= 2;
    return power;
}

static bool same_kind(const nn_bench_product *a, const nn_bench_product *b)
{
    bool tn = a->layout == NN_GEMM_TN;
    return a->layout == b->layout && a->type == b->type && a->groups == b->groups && a->n == b->n &&
           (tn ? a->m == b->m : a->k == b->k) &&
           round_up(tn ? a->k : a->m) == round_up(tn ? b->k : b->m);
}

/* Products that are tuned by what nn_bench_product says of them. */
static bool product_of(const nn_gemm *g, nn_bench_product *p)
{
    *p = (nn_bench_product){.layout = g->layout, .type = g->a_type, .m = g->m, .n = g->n, .k = g->k,
                            .groups = g->groups};
    return g->a_type == g->b_type && g->batch <= 1 && g->groups <= NN_BENCH_GROUPS && g->m && g->n && g->k;
}

void nn_tune_note(void *with, const nn_gemm *g)
{
    nn_tune_list *list = with;
    nn_bench_product p;
    if (!product_of(g, &p))
        return;
    for (size_t i = 0; i < list->count; i++)
        if (same_kind(&list->items[i], &p))
            return;
    if (cs_grow(&list->items, &list->capacity, list->count + 1, sizeof p, "matrix products to tune"))
        list->items[list->count++] = p;
    else
        list->failed = true;
}

/* ---- choices ----------------------------------------------------------------------------------------------------- */

static bool set_choice(tuning *t, const nn_bench_product *p, const char *variant)
{
    for (size_t i = 0; i < t->count; i++)
        if (same_kind(&t->items[i].product, p)) {
            t->items[i].variant = variant;
            return true;
        }
    if (!cs_grow(&t->items, &t->capacity, t->count + 1, sizeof *t->items, "tuned matrix products"))
        return false;
    t->items[t->count++] = (choice){*p, variant};
    return true;
}

/* The table's own string; NULL for an unknown variant. */
static const char *known_variant(const char *name)
{
    for (int i = 0; nn_gemm_variant_name(i); i++)
        if (!strcmp(nn_gemm_variant_name(i), name))
            return nn_gemm_variant_name(i);
    return NULL;
}

static bool layout_of(const char *name, enum nn_gemm_layout *layout)
{
    for (int i = NN_GEMM_NT; i <= NN_GEMM_TN; i++)
        if (!strcmp(nn_gemm_layout_names[i], name)) {
            *layout = (enum nn_gemm_layout)i;
            return true;
        }
    return false;
}

static bool type_of(const char *name, enum nn_dtype *type)
{
    static const enum nn_dtype types[] = {NN_F32, NN_F16, NN_BF16};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (!strcmp(nn_dtype_name(types[i]), name)) {
            *type = types[i];
            return true;
        }
    return false;
}

/* ---- the file ---------------------------------------------------------------------------------------------------- */

static char *file_of(const vk_device *device)
{
    const vk_caps *caps = vk_device_caps(device);
    char name[64] = "tuning-";
    size_t used = strlen(name);
    for (size_t i = 0; i < sizeof caps->uuid; i++)
        used += (size_t)snprintf(name + used, sizeof name - used, "%02x", caps->uuid[i]);
    snprintf(name + used, sizeof name - used, ".json");
    return vk_cache_file(device, name);
}

/* One product of the file. A variant that this build does not have is passed over; false where it is no product. */
static bool read_product(tuning *t, json_t *item)
{
    nn_bench_product p = {0};
    const char *layout, *type, *name;
    int m, n, k, groups;
    if (json_unpack(item, "{ss ss si si si si ss}", "layout", &layout, "type", &type, "m", &m, "n", &n, "k", &k,
                    "groups", &groups, "variant", &name) ||
        !layout_of(layout, &p.layout) || !type_of(type, &p.type) || m < 1 || n < 1 || k < 1 || groups < 0)
        return false;
    p.m = (uint32_t)m;
    p.n = (uint32_t)n;
    p.k = (uint32_t)k;
    p.groups = (uint32_t)groups;
    const char *variant = known_variant(name);
    return !variant || set_choice(t, &p, variant);
}

static bool read_products(tuning *t, json_t *products)
{
    size_t i;
    json_t *item;
    if (!json_is_array(products))
        return false;
    json_array_foreach(products, i, item)
        if (!read_product(t, item))
            return false;
    return true;
}

static bool is_driver(const vk_caps *caps, json_t *root)
{
    json_int_t version = 0;
    const char *info = "";
    return !json_unpack(root, "{sI ss}", "driver_version", &version, "driver_info", &info) &&
           version == (json_int_t)caps->driver_version && !strcmp(info, caps->driver_info);
}

static void load(tuning *t, const vk_device *device, const char *path)
{
    enum { MAX_BYTES = 16 << 20 };
    size_t size;
    char *text = cs_read_file(path, MAX_BYTES, &size);
    json_error_t error;
    json_t *root = text ? json_loadb(text, size, 0, &error) : NULL;
    json_t *products = json_object_get(root, "products");
    if (!products || !json_object_get(root, "driver_version")) {
        cs_log(CS_LOG_WARN, "tuning file %s is damaged and ignored; 'csmoe tune' makes a new one", path);
    } else if (!is_driver(vk_device_caps(device), root)) {
        cs_log(CS_LOG_WARN, "tuning file %s is another driver's and ignored; 'csmoe tune' makes a new one", path);
    } else if (!read_products(t, products)) {
        t->count = 0;
        cs_log(CS_LOG_WARN, "tuning file %s is damaged and ignored; 'csmoe tune' makes a new one", path);
    }
    json_decref(root);
    free(text);
}

/* The device's choices, read at the first call; NULL where there is no memory for them. */
static tuning *tuning_of(vk_device *device)
{
    tuning *t = vk_attached(device);
    if (t || !(t = cs_alloc(1, sizeof *t, "tuned matrix products")))
        return t;
    vk_attach(device, t, release);
    char *path = file_of(device);
    if (path && cs_is_file(path))
        load(t, device, path);
    free(path);
    return t;
}

const char *nn_tune_choice(vk_device *device, const nn_gemm *g)
{
    const tuning *t = tuning_of(device);
    nn_bench_product p;
    for (size_t i = 0; t && t->count && product_of(g, &p) && i < t->count; i++)
        if (same_kind(&t->items[i].product, &p))
            return t->items[i].variant;
    return NULL;
}

static bool add_product(json_t *products, const choice *c)
{
    const nn_bench_product *p = &c->product;
    json_t *item = json_pack("{ss ss sI sI sI sI ss}", "layout", nn_gemm_layout_names[p->layout], "type",
                             nn_dtype_name(p->type), "m", (json_int_t)p->m, "n", (json_int_t)p->n, "k",
                             (json_int_t)p->k, "groups", (json_int_t)p->groups, "variant", c->variant);
    return item && !json_array_append_new(products, item);
}

static bool save(const tuning *t, const vk_caps *caps, const char *path)
{
    json_t *products = json_array();
    json_t *root = json_pack("{ss ss ss sI so}", "device", caps->name, "driver", caps->driver, "driver_info",
                             caps->driver_info, "driver_version", (json_int_t)caps->driver_version, "products",
                             products);
    bool ok = root != NULL;
    for (size_t i = 0; ok && i < t->count; i++)
        ok = add_product(products, &t->items[i]);
    char *text = ok ? json_dumps(root, JSON_INDENT(2)) : NULL;
    ok = text ? cs_write_file(path, text, strlen(text)) : cs_fail("out of memory writing the tuning file");
    free(text);
    json_decref(root);
    return ok;
}

bool nn_tune_keep(vk_device *device, const nn_bench_contest *contests, size_t count, char **path)
{
    tuning *t = tuning_of(device);
    *path = t ? file_of(device) : NULL;
    if (!*path)
        return t && cs_fail("keeping tuned choices: there is no cache folder ($XDG_CACHE_HOME and $HOME are not set)");
    for (size_t i = 0; i < count; i++)
        if (contests[i].count && !set_choice(t, &contests[i].product, contests[i].times[0].variant))
            return false;
    return save(t, vk_device_caps(device), *path);
}
