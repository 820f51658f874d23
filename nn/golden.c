#include "nn/golden.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"

enum { MAX_CASES_BYTES = 64 << 20 };

struct nn_golden_cases {
    char *path;
    json_t *root;
};

bool nn_golden_cases_read(const char *folder, nn_golden_cases **cases)
{
    *cases = NULL;
    char *path = cs_join(folder, "cases.json"), *text = NULL;
    if (!path)
        return false;
    if (!cs_is_file(path)) {
        free(path);
        return true;
    }
    size_t size;
    json_error_t error;
    json_t *root = NULL;
    if ((text = cs_read_file(path, MAX_CASES_BYTES, &size)) && !(root = json_loadb(text, size, 0, &error)))
        cs_fail("%s:%d:%d: %s", path, error.line, error.column, error.text);
    if (root && !json_is_array(json_object_get(root, "cases")))
        cs_fail("%s: no list \"cases\"", path);
    else if (root && (*cases = cs_alloc(1, sizeof **cases, path)))
        **cases = (nn_golden_cases){path, json_incref(root)};
    json_decref(root);
    free(text);
    if (!*cases)
        free(path);
    return *cases;
}

void nn_golden_cases_free(nn_golden_cases **cases)
{
    if (!*cases)
        return;
    json_decref((*cases)->root);
    free((*cases)->path);
    free(*cases);
    *cases = NULL;
}

static const json_t *find_case(const nn_golden_cases *cases, const char *path)
{
    const char *name = cs_base_name(path);
    size_t i;
    json_t *c;
    if (cases)
        json_array_foreach (json_object_get(cases->root, "cases"), i, c) {
            const char *file = json_string_value(json_object_get(c, "file"));
            if (file && !strcmp(file, name))
                return c;
        }
    return NULL;
}

static bool unsupported(nn_golden *g, const char *why, const char *what)
{
    g->kind = NN_GOLDEN_UNSUPPORTED;
    snprintf(g->reason, sizeof g->reason, "%s%s%s", why, what ? " " : "", what ? what : "");
    return true;
}

/* Takes `word` and an underscore from the front of the text. */
static bool take(const char **text, const char *word)
{
    size_t n = strlen(word);
    if (strncmp(*text, word, n) != 0 || ((*text)[n] && (*text)[n] != '_'))
        return false;
    *text += n + ((*text)[n] == '_');
    return true;
}

/* "router", "infer", "infer_return_ids" or "compete_<affinity>" with "_hybrid" and "_norm_sigmoid". */
static bool parse_mode(nn_golden *g)
{
    const char *rest = g->mode;
    g->kind = NN_GOLDEN_LAYER;
    if (!strcmp(rest, "infer"))
        return true;
    g->training = true; /* also in inference that returns ids: its losses are evaluated (5) */
    if (!strcmp(rest, "infer_return_ids"))
        return true;
    g->gradients = true;
    if (!strcmp(rest, "router"))
        return true;
    g->compete = take(&rest, "compete");
    int affinity = 0;
    while (g->compete && nn_affinity_names[affinity] && !take(&rest, nn_affinity_names[affinity]))
        affinity++;
    if (!g->compete || !nn_affinity_names[affinity])
        return unsupported(g, "mode", g->mode);
    g->config.affinity = affinity;
    g->config.hybrid = take(&rest, "hybrid");
    g->config.norm_sigmoid = take(&rest, "norm_sigmoid");
    return !*rest || unsupported(g, "mode", g->mode);
}

static bool parse_activation(nn_golden *g, const char *name)
{
    static const char *const names[] = {"gelu_erf", "gelu_tanh", "quick_gelu", "relu", "swiglu_silu"};
    for (int i = 0; i <= NN_FFN_SWIGLU; i++)
        if (name && !strcmp(name, names[i])) {
            g->ffn = (enum nn_ffn_kind)i;
            return true;
        }
    return unsupported(g, "activation", name ? name : "unknown");
}

static float coefficient(const json_t *c, const char *name, float fallback)
{
    const json_t *value = json_object_get(json_object_get(c, "coefficients"), name);
    return json_is_number(value) ? (float)json_number_value(value) : fallback;
}

static void parse_coefficients(nn_golden *g, const json_t *c)
{
    g->config.balance_loss_coef = coefficient(c, "balance_loss_coef", 0.01f);
    g->config.router_z_loss_coef = coefficient(c, "router_z_loss_coef", 0.001f);
    g->config.router_loss_coef = coefficient(c, "router_loss_coef", 0.01f);
    g->config.diversity_loss_coef = coefficient(c, "diversity_loss_coef", 0.01f);
    g->config.bal_comp_loss_coef = coefficient(c, "bal_comp_loss_coef", 0.01f);
    g->config.router_theta = coefficient(c, "router_theta", 0.1f);
}

/* Options change the layer; one that is switched on and not known here makes the case another layer. */
static bool parse_options(nn_golden *g, const json_t *c)
{
    const char *name;
    json_t *value;
    json_object_foreach (json_object_get(c, "options"), name, value) {
        if (!strcmp(name, "hybrid"))
            g->config.hybrid = json_is_true(value);
        else if (!strcmp(name, "norm_sigmoid"))
            g->config.norm_sigmoid = json_is_true(value);
        else if (!json_is_false(value) && !json_is_null(value))
            return unsupported(g, "option", name);
    }
    return true;
}

static bool describe_schedule(nn_golden *g, const json_t *c)
{
    g->kind = NN_GOLDEN_SCHEDULE;
    if (!c)
        return unsupported(g, "a schedule needs its case in cases.json", NULL);
    g->rate = json_number_value(json_object_get(c, "rate_flip"));
    g->warmup = json_number_value(json_object_get(c, "warm_up"));
    g->total_steps = json_integer_value(json_object_get(c, "total_steps"));
    g->max_layers = (int)json_integer_value(json_object_get(c, "max_compete_in_iter"));
    return true;
}

bool nn_golden_describe(const nn_golden_cases *cases, const nn_safetensors *st, nn_golden *g)
{
    const json_t *c = find_case(cases, nn_safetensors_path(st));
    *g = (nn_golden){.listed = c, .errors = json_object_get(c, "float32_vs_float64")};
    if (nn_safetensors_find(st, "uniform_draws"))
        return describe_schedule(g, c);

    const char *mode = c ? json_string_value(json_object_get(c, "mode")) : nn_safetensors_metadata(st, "mode");
    if (!mode)
        return unsupported(g, "neither cases.json nor the file's metadata give its mode", NULL);
    snprintf(g->mode, sizeof g->mode, "%s", mode);
    if (!parse_mode(g) || g->kind == NN_GOLDEN_UNSUPPORTED)
        return g->kind == NN_GOLDEN_UNSUPPORTED;
    parse_coefficients(g, c);
    if (c)
        return parse_options(g, c) && (g->kind == NN_GOLDEN_UNSUPPORTED ||
               parse_activation(g, json_string_value(json_object_get(c, "activation"))));
    g->ffn = nn_safetensors_find(st, "experts.0.w3") ? NN_FFN_SWIGLU : NN_FFN_GELU;
    return true;
}

/* "grad.experts.12.w1" becomes "grad.experts.*.w1". */
static void expert_to_star(const char *name, char *out, size_t size)
{
    const char *index = strstr(name, "experts.");
    index = index ? index + strlen("experts.") : NULL;
    size_t digits = index ? strspn(index, "0123456789") : 0;
    if (digits)
        snprintf(out, size, "%.*s*%s", (int)(index - name), name, index + digits);
    else
        snprintf(out, size, "%s", name);
}

double nn_golden_error(const nn_golden *g, const char *tensor)
{
    char key[160];
    expert_to_star(tensor, key, sizeof key);
    return json_number_value(json_array_get(json_object_get(g->errors, key), 0));
}
