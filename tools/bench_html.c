/* One page that needs no other file: devices, roofline, bars, tables. */
#include <stdlib.h>
#include <string.h>

#include "tools/bench_report.h"

static const char head[] =
    "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
    "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>csmoe bench</title>\n<style>\n"
    ":root { color-scheme: light dark; --page: #fff; --ink: #1c2024; --soft: #60646c; --grid: #d9dce1; "
    "--warn: #fff1d6;\n"
    "  --d0: #1f6fb4; --d1: #c2410c; --d2: #15803d; --d3: #9333ea; --d4: #b4236a; --d5: #0f766e; }\n"
    "@media (prefers-color-scheme: dark) { :root { --page: #15181c; --ink: #e8eaed; --soft: #a2a8b2; --grid: #353a42;\n"
    "  --warn: #4a3510; --d0: #6cb2f2; --d1: #fb9a62; --d2: #5fd08a; --d3: #c79bff; --d4: #ff8fc0; --d5: #4fd0c3; } }\n"
    "body { font: 15px/1.45 system-ui, sans-serif; color: var(--ink); background: var(--page); max-width: 1080px;\n"
    "  margin: 2rem auto; padding: 0 1rem; }\n"
    "h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.5rem; }\n"
    ".warning { background: var(--warn); padding: .6rem 1rem; border-radius: 6px; font-weight: 600; }\n"
    ".wide { overflow-x: auto; } table { border-collapse: collapse; font-size: 13px; }\n"
    "th, td { padding: 3px 9px; border-bottom: 1px solid var(--grid); text-align: right; white-space: nowrap; }\n"
    "th.text, td.text { text-align: left; } td { font-variant-numeric: tabular-nums; }\n"
    ".swatch { display: inline-block; width: 12px; height: 12px; border-radius: 3px; margin-right: 6px; }\n"
    "svg { width: 100%; height: auto; font: 12px system-ui, sans-serif; } svg text { fill: var(--ink); }\n"
    ".name { font-size: 11px; } .grid path { stroke: var(--grid); } .grid text { fill: var(--soft); }\n"
    ".roof { fill: none; stroke-width: 2; } .point { stroke: var(--of); stroke-width: 1.5;\n"
    "  fill: var(--of); fill-opacity: .75; } .hollow { fill: var(--page); }\n"
    "p.note { color: var(--soft); }\n"
    "</style>\n</head>\n<body>\n<h1>csmoe bench</h1>\n";

static void put_text_cell(const char *text, FILE *out)
{
    fputs("<td class=\"text\">", out);
    bench_put_escaped(text, out);
    fputs("</td>", out);
}

/* ---- devices ----------------------------------------------------------------------------------------------------- */

static void put_devices(const json_t *doc, FILE *out)
{
    size_t d;
    const json_t *device;
    fputs("<div class=\"wide\"><table><tr><th class=\"text\">device</th><th class=\"text\">driver</th>"
          "<th class=\"text\">version</th><th class=\"text\">Vulkan</th><th class=\"text\">csmoe</th>"
          "<th class=\"text\">commit</th><th class=\"text\">date</th></tr>\n", out);
    json_array_foreach(doc, d, device)
    {
        fprintf(out, "<tr><td class=\"text\"><span class=\"swatch\" style=\"background:var(--d%zu)\"></span>", d % 6);
        bench_put_escaped(bench_device_text(device, "device"), out);
        fputs("</td>", out);
        for (int i = 1; i < BENCH_DEVICE_TEXTS; i++)
            put_text_cell(bench_device_text(device, bench_device_keys[i]), out);
        fputs("</tr>\n", out);
    }
    fputs("</table></div>\n", out);
    json_array_foreach(doc, d, device)
        if (bench_is_cpu(device)) {
            fputs("<p class=\"warning\">", out);
            bench_put_escaped(bench_device_text(device, "device"), out);
            fprintf(out, ": %s</p>\n", bench_cpu_warning);
        }
}

/* ---- tables ------------------------------------------------------------------------------------------------------ */

static void put_own_table(const bench_row *rows, size_t count, enum bench_part part, FILE *out)
{
    size_t columns;
    char text[BENCH_CELL];
    const bench_column *c = bench_columns(part, &columns);
    fputs("<tr>", out);
    for (size_t k = 0; k < columns; k++)
        fprintf(out, "<th%s>%s</th>", c[k].text >= 0 ? " class=\"text\"" : "", c[k].heading);
    fputs("</tr>\n", out);
    for (size_t i = 0; i < count; i++) {
        if (bench_part_of(&rows[i]) != part)
            continue;
        fputs("<tr>", out);
        for (size_t k = 0; k < columns; k++) {
            fprintf(out, "<td%s>", c[k].text >= 0 ? " class=\"text\"" : "");
            bench_put_escaped(bench_cell(&c[k], &rows[i], text), out);
            fputs("</td>", out);
        }
        fputs("</tr>\n", out);
    }
}

static void put_merged_table(const json_t *doc, const bench_row *rows, size_t count, enum bench_part part, FILE *out)
{
    char text[BENCH_CELL], name[BENCH_NAME];
    const size_t devices = json_array_size(doc);
    fputs("<tr><th class=\"text\">(x): times as fast as the first</th>", out);
    for (size_t d = 0; d < devices; d++) {
        fprintf(out, "<th><span class=\"swatch\" style=\"background:var(--d%zu)\"></span>", d % 6);
        bench_put_escaped(bench_device_name(json_array_get(doc, d), name), out);
        fputs("</th>", out);
    }
    fputs("</tr>\n", out);
    for (size_t i = 0; i < count; i++) {
        if (bench_part_of(&rows[i]) != part)
            continue;
        fputs("<tr>", out);
        put_text_cell(bench_row_name(&rows[i], name), out);
        for (size_t d = 0; d < devices; d++)
            fprintf(out, "<td>%s</td>", bench_compared(doc, d, &rows[i], text));
        fputs("</tr>\n", out);
    }
}

static bool has_part(const bench_row *rows, size_t count, enum bench_part part)
{
    for (size_t i = 0; i < count; i++)
        if (bench_part_of(&rows[i]) == part)
            return true;
    return false;
}

/* ---- the page ---------------------------------------------------------------------------------------------------- */

static void put_part(const json_t *doc, const bench_row *rows, size_t count, enum bench_part part, FILE *out)
{
    if (!has_part(rows, count, part))
        return;
    fprintf(out, "<h2>%s</h2>\n", bench_part_titles[part]);
    switch (part) {
    case BENCH_PEAKS:
        bench_put_bars(doc, rows, count, part, BENCH_GFLOPS, "GFLOP/s", out);
        bench_put_bars(doc, rows, count, part, BENCH_GBYTES, "GB/s", out);
        break;
    case BENCH_OPS:
        bench_put_bars(doc, rows, count, part, BENCH_ROOF_PERCENT, "% of what the measured peaks allow", out);
        break;
    case BENCH_MOE:
        bench_put_bars(doc, rows, count, part, BENCH_GFLOPS, "GFLOP/s", out);
        break;
    default:
        bench_put_bars(doc, rows, count, part, BENCH_TOKENS, "tokens per second", out);
    }
    fputs("<div class=\"wide\"><table>\n", out);
    if (json_array_size(doc) > 1)
        put_merged_table(doc, rows, count, part, out);
    else
        put_own_table(rows, count, part, out);
    fputs("</table></div>\n", out);
}

static void put_roofline(const json_t *doc, FILE *out)
{
    fputs("<h2>Roofline</h2>\n", out);
    if (bench_put_roofline(doc, out))
        fputs("<p class=\"note\">Lines: each device's measured peaks in f32, dashed with its f16 matrices. Points: "
              "operators and matrix products, filled "
              "forward, hollow backward; those that fit a cache can stand above the slope. Point at one for its "
              "name.</p>\n",
              out);
    else
        fputs("<p class=\"note\">None of the files has measured peaks.</p>\n", out);
}

bool bench_write_html(const json_t *doc, FILE *out)
{
    size_t count;
    bench_row *rows = bench_all_rows(doc, &count);
    if (!rows)
        return false;
    fputs(head, out);
    put_devices(doc, out);
    put_roofline(doc, out);
    for (int part = 0; part < BENCH_PARTS; part++)
        put_part(doc, rows, count, (enum bench_part)part, out);
    fputs("</body>\n</html>\n", out);
    free(rows);
    return true;
}
