/* csmoe devices: what can be computed on, with what, and which device "auto" means. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "tools/commands.h"
#include "tools/options.h"
#include "vk/vk.h"

static bool as_json;

static const cs_option options[] = {
    {"json", CS_OPT_FLAG, &as_json, .doc = "print the list as JSON, with every limit that was probed"},
};
static const cs_syntax syntax = {
    .name = "devices",
    .about = "Lists the Vulkan devices that can be used, in the order of the indices that --device takes. A star marks "
             "the one taken without --device and CSMOE_DEVICE: discrete before integrated before virtual before CPU.",
    .options = options,
    .option_count = CS_COUNT(options),
};

static const char *type_name(enum vk_type type)
{
    static const char *const names[] = {[VK_TYPE_DISCRETE] = "discrete GPU",
                                        [VK_TYPE_INTEGRATED] = "integrated GPU",
                                        [VK_TYPE_VIRTUAL] = "virtual GPU",
                                        [VK_TYPE_CPU] = "CPU",
                                        [VK_TYPE_OTHER] = "other"};
    return names[type];
}

/* The usual form of a UUID, 8-4-4-4-12. */
static void print_uuid(char text[37], const uint8_t uuid[16])
{
    for (int i = 0, at = 0; i < 16; i++)
        at +=
            snprintf(text + at, (size_t)(37 - at), "%s%02x", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", uuid[i]);
}

/* The optional features that kernels and the runtime make use of. */
typedef struct feature {
    const char *name;
    bool present;
} feature;

enum { FEATURES = 12 };

static void list_features(feature out[FEATURES], const vk_caps *c)
{
    const feature all[FEATURES] = {
        {"subgroup arithmetic", c->subgroup_arithmetic},
        {"subgroup shuffle", c->subgroup_shuffle},
        {"subgroup size control", c->subgroup_control},
        {"float16", c->float16},
        {"16-bit storage", c->storage16},
        {"int64", c->int64},
        {"cooperative matrices", c->matrix_count > 0},
        {"cooperative matrices 2", c->matrix2_count > 0},
        {"push descriptors", c->push_descriptor},
        {"memory budget", c->memory_budget},
        {"device fault", c->device_fault},
        {"timestamps", c->timestamps},
    };
    for (int i = 0; i < FEATURES; i++)
        out[i] = all[i];
}

static void print_features(const vk_caps *c, bool present)
{
    feature features[FEATURES];
    list_features(features, c);
    const char *separator = "";
    for (int i = 0; i < FEATURES; i++)
        if (features[i].present == present) {
            printf("%s%s", separator, features[i].name);
            separator = ", ";
        }
    printf("%s\n", *separator ? "" : "none");
}

static void print_matrix_shapes(const vk_caps *c)
{
    printf("     matrices  ");
    for (uint32_t i = 0; i < c->matrix_count; i++) {
        const vk_matrix_shape *s = &c->matrix[i];
        printf("%s %ux%ux%u %s", i ? "," : "", s->m, s->n, s->k, s->bfloat16 ? "bf16" : "f16");
    }
    printf("\n");
}

/* No device has run these kernels, which is why only csmoe tune chooses them. */
static void print_matrix_grains(const vk_caps *c)
{
    printf("     matrices 2 ");
    for (uint32_t i = 0; i < c->matrix2_count; i++) {
        const vk_matrix_grain *s = &c->matrix2[i];
        printf("%s%ux%ux%u %s by %u", i ? ", " : "", s->m, s->n, s->k, s->bfloat16 ? "bf16" : "f16", s->invocations);
    }
    printf("; untried: only 'csmoe tune' chooses them\n");
}

static void print_device(const vk_caps *c, size_t index, bool chosen)
{
    char uuid[37];
    print_uuid(uuid, c->uuid);
    printf("%c %zu  %s (%s)\n", chosen ? '*' : ' ', index, c->name, type_name(c->type));
    printf("     driver     %s%s%s; Vulkan %u.%u.%u\n", c->driver, *c->driver_info ? ", " : "", c->driver_info,
           c->api_version >> 22 & 0x7f, c->api_version >> 12 & 0x3ff, c->api_version & 0xfff);
    printf("     UUID       %s\n", uuid);
    printf("     memory     %.1f GiB; one storage buffer up to %.1f MiB\n", (double)c->memory_bytes / 0x1p30,
           (double)c->max_storage_range / 0x1p20);
    printf("     subgroup   %u", c->subgroup_size);
    if (c->subgroup_min != c->subgroup_max)
        printf(" (%u to %u)", c->subgroup_min, c->subgroup_max);
    printf("; workgroup up to %u, %u KiB shared", c->max_invocations, c->max_shared_bytes / 1024);
    if (c->cores)
        printf("; %u cores", c->cores);
    putchar('\n');
    if (c->matrix_count)
        print_matrix_shapes(c);
    if (c->matrix2_count)
        print_matrix_grains(c);
    printf("     features   ");
    print_features(c, true);
    printf("     without    ");
    print_features(c, false);
}

static json_t *device_json(const vk_caps *c, size_t index)
{
    char uuid[37];
    print_uuid(uuid, c->uuid);
    json_t *list = json_object();
    feature features[FEATURES];
    list_features(features, c);
    for (int i = 0; i < FEATURES; i++)
        json_object_set_new(list, features[i].name, json_boolean(features[i].present));
    json_t *shapes = json_array();
    for (uint32_t i = 0; i < c->matrix_count; i++) {
        const vk_matrix_shape *s = &c->matrix[i];
        json_array_append_new(shapes, json_pack("{ss sI sI sI}", "type", s->bfloat16 ? "bf16" : "f16", "m",
                                                (json_int_t)s->m, "n", (json_int_t)s->n, "k", (json_int_t)s->k));
    }
    return json_pack("{sI ss ss ss ss ss sI sI sI sI sI sI sI sI sI sI sI so so}", "index", (json_int_t)index, "name",
                     c->name, "type", type_name(c->type), "driver", c->driver, "driver_info", c->driver_info, "uuid",
                     uuid, "vendor_id", (json_int_t)c->vendor_id, "device_id", (json_int_t)c->device_id,
                     "driver_version", (json_int_t)c->driver_version, "api_version", (json_int_t)c->api_version,
                     "memory_bytes", (json_int_t)c->memory_bytes, "max_storage_range", (json_int_t)c->max_storage_range,
                     "subgroup_size", (json_int_t)c->subgroup_size, "max_invocations", (json_int_t)c->max_invocations,
                     "max_shared_bytes", (json_int_t)c->max_shared_bytes, "max_push_bytes",
                     (json_int_t)c->max_push_bytes, "cores", (json_int_t)c->cores, "features", list,
                     "matrix_shapes", shapes);
}

static bool print_json(const vk_caps *devices, size_t count, size_t chosen)
{
    json_t *list = json_array(), *root = json_pack("{so sI}", "devices", list, "auto", (json_int_t)chosen);
    bool ok = root != NULL;
    for (size_t i = 0; ok && i < count; i++)
        ok = json_array_append_new(list, device_json(&devices[i], i)) == 0;
    ok = (ok && json_dumpf(root, stdout, JSON_INDENT(2)) == 0) || cs_fail("out of memory writing the list of devices");
    if (ok)
        putchar('\n');
    json_decref(root);
    return ok;
}

int cmd_devices(int argc, char **argv)
{
    int status;
    if (!cs_parse(&syntax, argc, argv, &status))
        return status;
    vk_caps *devices;
    size_t count, chosen;
    if (!vk_list(&devices, &count, &chosen))
        return cs_failed();
    bool ok = true;
    if (as_json)
        ok = print_json(devices, count, chosen);
    for (size_t i = 0; i < count && !as_json; i++)
        print_device(&devices[i], i, i == chosen);
    free(devices);
    return ok ? 0 : cs_failed();
}
