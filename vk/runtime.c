/* Compiling a kernel from $CSMOE_SHADER_DIR, for those who edit kernels without rebuilding. */
#include "vk/internal.h"

#ifndef HAVE_SHADERC

bool vk_runtime_compile(const vk_kernel_source *source, const char *folder, uint32_t **code, size_t *bytes)
{
    (void)code;
    (void)bytes;
    return cs_fail("CSMOE_SHADER_DIR=%s: this build cannot compile %s (built without libshaderc, see the meson option "
                   "runtime_shaders)", folder, source->file);
}

#else

#include <shaderc/shaderc.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/memory.h"

enum { MAX_SHADER_BYTES = 1 << 20 };

struct include {
    shaderc_include_result result;
    char *name, *text;
};

/* Includes are looked for in <folder>/include, as in the build. */
static shaderc_include_result *resolve(void *user, const char *requested, int type, const char *from, size_t depth)
{
    (void)type;
    (void)from;
    (void)depth;
    static shaderc_include_result no_memory = {"", 0, "out of memory", 13, NULL};
    struct include *include = calloc(1, sizeof *include);
    if (!include)
        return &no_memory;
    size_t size = 0;
    char *folder = cs_join(user, "include");
    include->name = folder ? cs_join(folder, requested) : NULL;
    include->text = include->name ? cs_read_file(include->name, MAX_SHADER_BYTES, &size) : NULL;
    free(folder);
    include->result = (shaderc_include_result){.user_data = include};
    if (include->text) {
        include->result.source_name = include->name;
        include->result.source_name_length = strlen(include->name);
        include->result.content = include->text;
        include->result.content_length = size;
    } else {
        include->result.source_name = "";
        include->result.content = cs_error();
        include->result.content_length = strlen(cs_error());
    }
    return &include->result;
}

static void release(void *user, shaderc_include_result *result)
{
    (void)user;
    struct include *include = result->user_data;
    if (!include)
        return;
    free(include->name);
    free(include->text);
    free(include);
}

/* "--target-env=vulkan1.3 -DA=1 -DB": the same as on glslc's command line. */
static bool add_arguments(shaderc_compile_options_t options, const char *arguments)
{
    char *text = cs_strdup(arguments), *rest = NULL;
    if (!text)
        return false;
    for (char *word = strtok_r(text, " ", &rest); word; word = strtok_r(NULL, " ", &rest)) {
        if (!strcmp(word, "--target-env=vulkan1.3"))
            shaderc_compile_options_set_target_env(options, shaderc_target_env_vulkan,
                                                   shaderc_env_version_vulkan_1_3);
        if (strncmp(word, "-D", 2))
            continue;
        char *name = word + 2, *value = strchr(name, '=');
        size_t length = value ? (size_t)(value - name) : strlen(name);
        value = value ? value + 1 : "";
        shaderc_compile_options_add_macro_definition(options, name, length, value, strlen(value));
    }
    free(text);
    return true;
}

static bool compile(shaderc_compiler_t compiler, shaderc_compile_options_t options, const char *path, const char *text,
                    size_t size, uint32_t **code, size_t *bytes)
{
    shaderc_compilation_result_t result =
        shaderc_compile_into_spv(compiler, text, size, shaderc_compute_shader, path, "main", options);
    if (!result)
        return cs_fail("compiling %s: out of memory", path);
    bool ok = shaderc_result_get_compilation_status(result) == shaderc_compilation_status_success;
    if (!ok) {
        cs_fail("compiling %s:\n%s", path, shaderc_result_get_error_message(result));
    } else {
        *bytes = shaderc_result_get_length(result);
        *code = cs_alloc(*bytes, 1, "a compiled kernel");
        ok = *code;
        if (ok)
            memcpy(*code, shaderc_result_get_bytes(result), *bytes);
    }
    shaderc_result_release(result);
    return ok;
}

bool vk_runtime_compile(const vk_kernel_source *source, const char *folder, uint32_t **code, size_t *bytes)
{
    size_t size = 0;
    char *path = cs_join(folder, source->file), *text = path ? cs_read_file(path, MAX_SHADER_BYTES, &size) : NULL;
    if (!text) {
        free(path);
        return cs_fail_in("CSMOE_SHADER_DIR");
    }
    shaderc_compiler_t compiler = shaderc_compiler_initialize();
    shaderc_compile_options_t options = shaderc_compile_options_initialize();
    bool ok = compiler && options;
    if (!ok)
        cs_fail("compiling %s: libshaderc does not start", path);
    if (ok) {
        shaderc_compile_options_set_target_env(options, shaderc_target_env_vulkan, shaderc_env_version_vulkan_1_2);
        shaderc_compile_options_set_optimization_level(options, shaderc_optimization_level_performance);
        shaderc_compile_options_set_include_callbacks(options, resolve, release, (void *)folder);
        ok = add_arguments(options, source->arguments) && compile(compiler, options, path, text, size, code, bytes);
    }
    shaderc_compile_options_release(options);
    shaderc_compiler_release(compiler);
    free(text);
    free(path);
    return ok;
}

#endif
