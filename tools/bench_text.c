/* Tables for the terminal, Markdown and spreadsheets. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tools/bench_report.h"

/* ---- terminal ---------------------------------------------------------------------------------------------------- */

void bench_print_device(const json_t *device, FILE *out)
{
    fprintf(out, "%s, %s %s, Vulkan %s, csmoe %s (%s), %s\n", bench_device_text(device, "device"),
            bench_device_text(device, "driver"), bench_device_text(device, "driver_info"),
            bench_device_text(device, "vulkan"), bench_device_text(device, "csmoe"),
            bench_device_text(device, "commit"), bench_device_text(device, "date"));
    if (bench_is_cpu(device))
        fprintf(out, "*** %s ***\n", bench_cpu_warning);
}

/* The table's last column ends the line without blanks. */
static void put_padded(const char *text, int width, bool last, FILE *out)
{
    if (last && width < 0)
        fprintf(out, "%s\n", text);
    else
        fprintf(out, "%*s%c", width, text, last ? '\n' : ' ');
}

void bench_print_heading(enum bench_part part, FILE *out)
{
    size_t count;
    const bench_column *c = bench_columns(part, &count);
    fprintf(out, "\n%s\n", bench_part_titles[part]);
    for (size_t i = 0; i < count; i++)
        put_padded(c[i].heading, c[i].width, i + 1 == count, out);
}

void bench_print_row(const bench_row *row, FILE *out)
{
    size_t count;
    char text[BENCH_CELL];
    const bench_column *c = bench_columns(bench_part_of(row), &count);
    for (size_t i = 0; i < count; i++)
        put_padded(bench_cell(&c[i], row, text), c[i].width, i + 1 == count, out);
    fflush(out);
}

/* ---- several devices --------------------------------------------------------------------------------------------- */

bool bench_print_comparison(const json_t *doc, FILE *out)
{
    size_t count, devices = json_array_size(doc);
    bench_row *rows = bench_all_rows(doc, &count);
    char name[BENCH_NAME], text[BENCH_CELL];
    int part = -1;
    for (size_t d = 0; d < devices; d++) {
        fprintf(out, "[%zu] ", d + 1);
        bench_print_device(json_array_get(doc, d), out);
    }
    for (size_t i = 0; rows && i < count; i++) {
        if ((int)bench_part_of(&rows[i]) != part) {
            part = (int)bench_part_of(&rows[i]);
            fprintf(out, "\n%s; (x): times as fast as [1]\n%-64s", bench_part_titles[part], "");
            for (size_t d = 0; d < devices; d++)
                fprintf(out, " %23s%zu]", "[", d + 1);
            fputc('\n', out);
        }
        fprintf(out, "%-64s", bench_row_name(&rows[i], name));
        for (size_t d = 0; d < devices; d++)
            fprintf(out, " %25s", bench_compared(doc, d, &rows[i], text));
        fputc('\n', out);
    }
    free(rows);
    return rows;
}

/* ---- Markdown ---------------------------------------------------------------------------------------------------- */

/* A cell's text, in which no character ends the cell. */
static void put_markdown(const char *text, FILE *out)
{
    for (; *text; text++)
        fprintf(out, *text == '|' ? "\\|" : "%c", *text);
}

static void put_markdown_device(const json_t *device, FILE *out)
{
    static const char *const before[BENCH_DEVICE_TEXTS] = {"**", "**: ", " ", ", Vulkan ", ", csmoe ", ", ", ", "};
    for (int i = 0; i < BENCH_DEVICE_TEXTS; i++) {
        fputs(before[i], out);
        put_markdown(bench_device_text(device, bench_device_keys[i]), out);
    }
    fputc('\n', out);
    if (bench_is_cpu(device))
        fprintf(out, "\n> **%s.**\n", bench_cpu_warning);
}

static void put_markdown_heading(enum bench_part part, FILE *out)
{
    size_t count;
    const bench_column *c = bench_columns(part, &count);
    fprintf(out, "\n## %s\n\n|", bench_part_titles[part]);
    for (size_t i = 0; i < count; i++)
        fprintf(out, " %s |", c[i].heading);
    fputs("\n|", out);
    for (size_t i = 0; i < count; i++)
        fputs(c[i].width < 0 ? "---|" : "---:|", out);
    fputc('\n', out);
}

static void put_markdown_row(const bench_row *row, FILE *out)
{
    size_t count;
    char text[BENCH_CELL];
    const bench_column *c = bench_columns(bench_part_of(row), &count);
    fputc('|', out);
    for (size_t i = 0; i < count; i++) {
        fputc(' ', out);
        put_markdown(bench_cell(&c[i], row, text), out);
        fputs(" |", out);
    }
    fputc('\n', out);
}

static void put_markdown_comparison_heading(const json_t *doc, enum bench_part part, FILE *out)
{
    size_t devices = json_array_size(doc);
    char name[BENCH_NAME];
    fprintf(out, "\n## %s; (x): times as fast as the first\n\n| |", bench_part_titles[part]);
    for (size_t d = 0; d < devices; d++) {
        fputc(' ', out);
        put_markdown(bench_device_name(json_array_get(doc, d), name), out);
        fputs(" |", out);
    }
    fputs("\n|---|", out);
    for (size_t d = 0; d < devices; d++)
        fputs("---:|", out);
    fputc('\n', out);
}

static void put_markdown_comparison_row(const json_t *doc, const bench_row *row, FILE *out)
{
    char name[BENCH_NAME], text[BENCH_CELL];
    fputs("| ", out);
    put_markdown(bench_row_name(row, name), out);
    for (size_t d = 0; d < json_array_size(doc); d++)
        fprintf(out, " | %s", bench_compared(doc, d, row, text));
    fputs(" |\n", out);
}

bool bench_write_markdown(const json_t *doc, FILE *out)
{
    size_t count, d;
    const json_t *device;
    bench_row *rows = bench_all_rows(doc, &count);
    const bool several = json_array_size(doc) > 1;
    int part = -1;
    fputs("# Results of csmoe bench\n", out);
    json_array_foreach(doc, d, device)
    {
        fputc('\n', out);
        put_markdown_device(device, out);
    }
    for (size_t i = 0; rows && i < count; i++) {
        if ((int)bench_part_of(&rows[i]) != part) {
            part = (int)bench_part_of(&rows[i]);
            if (several)
                put_markdown_comparison_heading(doc, (enum bench_part)part, out);
            else
                put_markdown_heading((enum bench_part)part, out);
        }
        if (several)
            put_markdown_comparison_row(doc, &rows[i], out);
        else
            put_markdown_row(&rows[i], out);
    }
    free(rows);
    return rows;
}

/* ---- CSV --------------------------------------------------------------------------------------------------------- */

static void put_csv(const char *text, FILE *out)
{
    if (!strpbrk(text, ",\"\r\n")) {
        fputs(text, out);
        return;
    }
    fputc('"', out);
    for (; *text; text++)
        fprintf(out, *text == '"' ? "\"\"" : "%c", *text);
    fputc('"', out);
}

static void put_csv_row(const json_t *device, const bench_row *row, FILE *out)
{
    for (int i = 0; i < BENCH_DEVICE_TEXTS; i++) {
        put_csv(bench_device_text(device, bench_device_keys[i]), out);
        fputc(',', out);
    }
    fputs(bench_is_cpu(device) ? "true" : "false", out);
    for (int i = 0; i < BENCH_TEXTS; i++) {
        fputc(',', out);
        put_csv(row->text[i], out);
    }
    for (int i = 0; i < BENCH_FIGURES; i++) {
        fputc(',', out);
        if (isfinite(row->figure[i]))
            fprintf(out, "%.9g", row->figure[i]);
    }
    fputs("\r\n", out);
}

bool bench_write_csv(const json_t *doc, FILE *out)
{
    size_t d, i;
    const json_t *device, *result;
    for (int k = 0; k < BENCH_DEVICE_TEXTS; k++)
        fprintf(out, "%s,", bench_device_keys[k]);
    fputs("cpu_driver", out);
    for (int k = 0; k < BENCH_TEXTS; k++)
        fprintf(out, ",%s", bench_text_keys[k]);
    for (int k = 0; k < BENCH_FIGURES; k++)
        fprintf(out, ",%s", bench_figure_keys[k]);
    fputs("\r\n", out);
    json_array_foreach(doc, d, device)
        json_array_foreach(json_object_get(device, "results"), i, result)
        {
            const bench_row row = bench_row_read(result);
            put_csv_row(device, &row, out);
        }
    return true;
}
