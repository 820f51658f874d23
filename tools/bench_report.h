/* How results of csmoe bench look: tables of one device, a comparison of several, in every format. */
#ifndef TOOLS_BENCH_REPORT_H
#define TOOLS_BENCH_REPORT_H

#include <stdio.h>

#include "tools/bench_doc.h"

/* ---- columns (tools/bench_columns.c) ---------------------------------------------------------------------------- */

/* A column of a part's table: a text or a figure with its unit. */
typedef struct bench_column {
    const char *heading;
    int width;                /* on the terminal; negative: flush left */
    int text, figure;         /* enum bench_text, enum bench_figure; -1: the other one */
    int digits;               /* behind the point */
    double scale;             /* the figure is multiplied by it */
    const char *unit;         /* behind the number */
} bench_column;

enum { BENCH_CELL = 128, BENCH_NAME = 512 };
extern const char *const bench_part_titles[BENCH_PARTS];
extern const char bench_cpu_warning[];
/* "llvmpipe (LLVM 15), Mesa 22.3.6": what tells one device from the others. */
const char *bench_device_name(const json_t *device, char text[BENCH_NAME]);
/* The columns of a part's table. */
const bench_column *bench_columns(enum bench_part part, size_t *count);
/* A cell's text; "" where the figure does not apply. */
const char *bench_cell(const bench_column *column, const bench_row *row, char text[BENCH_CELL]);
/* The part a row belongs to. */
enum bench_part bench_part_of(const bench_row *row);
/* The figure that devices are compared by, a rate for the peaks and a time for the rest; "higher is better" or not. */
enum bench_figure bench_main_figure(const bench_row *row);
/* "softmax [4096, 1024] forward f32": a row's name in one line. */
const char *bench_row_name(const bench_row *row, char text[BENCH_NAME]);

/* A device's figure in a comparison, "12.3 ms (2.50x)", the ratio being its speed in terms of the first device's; ""
 * where it has none. */
const char *bench_compared(const json_t *doc, size_t device, const bench_row *row, char text[BENCH_CELL]);

/* Every row of any of the devices once, in the order in which they come up, the parts one after the other; free() it.
 * Their texts belong to the document. */
bench_row *bench_all_rows(const json_t *doc, size_t *count);

/* ---- writers ---------------------------------------------------------------------------------------------------- */

/* Terminal: what comes before a device's tables, before a part's rows, and one row. */
void bench_print_device(const json_t *device, FILE *out);
void bench_print_heading(enum bench_part part, FILE *out);
void bench_print_row(const bench_row *row, FILE *out);
/* Terminal: a line for each row with a column for each device. */
bool bench_print_comparison(const json_t *doc, FILE *out);

bool bench_write_markdown(const json_t *doc, FILE *out);
/* One line for each device and row, the device's texts in front (RFC 4180). */
bool bench_write_csv(const json_t *doc, FILE *out);
/* One page that needs no other file: bars, a roofline plot, all tables. */
bool bench_write_html(const json_t *doc, FILE *out);

/* ---- pieces of the page (tools/bench_plot.c) -------------------------------------------------------------------- */

/* Prints `text` with the characters escaped that mean something in HTML. */
void bench_put_escaped(const char *text, FILE *out);
/* The roofline: arithmetic intensity against rate, both logarithmic; every operator a point, every device its measured
 * roof. */
bool bench_put_roofline(const json_t *doc, FILE *out);
/* Bars of one figure of the part's rows, one for each device; nothing where no row has the figure. */
void bench_put_bars(const json_t *doc, const bench_row *rows, size_t count, enum bench_part part,
                    enum bench_figure figure, const char *axis, FILE *out);

#endif
