/* Plots as inline SVG; colours are the page's variables --d0.. by device, --ink and --grid. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tools/bench_report.h"

enum { COLOURS = 6, SHAPES = 4 };

void bench_put_escaped(const char *text, FILE *out)
{
    for (; *text; text++)
        switch (*text) {
        case '<':
            fputs("&lt;", out);
            break;
        case '>':
            fputs("&gt;", out);
            break;
        case '&':
            fputs("&amp;", out);
            break;
        case '"':
            fputs("&quot;", out);
            break;
        default:
            if ((unsigned char)*text >= ' ')
                fputc(*text, out);
        }
}

/* ---- roofline ---------------------------------------------------------------------------------------------------- */

enum { WIDTH = 960, HEIGHT = 560, LEFT = 70, RIGHT = 20, TOP = 20, BOTTOM = 50 };

/* Decades that both axes cover. */
typedef struct frame {
    double x0, x1, y0, y1; /* logarithms to base 10 */
} frame;

static double at_x(const frame *f, double intensity)
{
    return LEFT + (log10(intensity) - f->x0) / (f->x1 - f->x0) * (WIDTH - LEFT - RIGHT);
}

static double at_y(const frame *f, double rate)
{
    return HEIGHT - BOTTOM - (log10(rate) - f->y0) / (f->y1 - f->y0) * (HEIGHT - TOP - BOTTOM);
}

static bool has_point(const bench_row *row)
{
    return bench_part_of(row) == BENCH_OPS && row->figure[BENCH_FLOP] > 0 && row->figure[BENCH_BYTES] > 0 &&
           row->figure[BENCH_GFLOPS] > 0;
}

static void widen(frame *f, double intensity, double rate)
{
    f->x0 = fmin(f->x0, floor(log10(intensity)));
    f->x1 = fmax(f->x1, ceil(log10(intensity)));
    f->y0 = fmin(f->y0, floor(log10(rate)));
    f->y1 = fmax(f->y1, ceil(log10(rate)));
}

/* False where there is nothing to show. */
static bool frame_of(const json_t *doc, frame *f)
{
    size_t d, i;
    const json_t *device, *result;
    bool any = false;
    *f = (frame){-1, 2, 0, 1};
    json_array_foreach(doc, d, device)
    {
        const double flops = bench_peak_gflops(device, "f16"), bytes = bench_peak_gbytes(device); /* the higher roof */
        if (flops > 0 && bytes > 0) {
            widen(f, flops / bytes, flops);
            any = true;
        }
        json_array_foreach(json_object_get(device, "results"), i, result)
        {
            const bench_row row = bench_row_read(result);
            if (has_point(&row))
                widen(f, row.figure[BENCH_FLOP] / row.figure[BENCH_BYTES], row.figure[BENCH_GFLOPS]);
        }
    }
    return any;
}

static void put_grid(const frame *f, FILE *out)
{
    const double bottom = HEIGHT - BOTTOM, right = WIDTH - RIGHT;
    fputs("<g class=\"grid\">", out);
    for (double x = f->x0; x <= f->x1; x++)
        fprintf(out, "<path d=\"M%.1f %d V%.1f\"/><text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">%g</text>\n",
                at_x(f, pow(10, x)), TOP, bottom, at_x(f, pow(10, x)), bottom + 18, pow(10, x));
    for (double y = f->y0; y <= f->y1; y++)
        fprintf(out, "<path d=\"M%d %.1f H%.1f\"/><text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%g</text>\n", LEFT,
                at_y(f, pow(10, y)), right, LEFT - 6, at_y(f, pow(10, y)) + 4, pow(10, y));
    fprintf(out, "<text x=\"%d\" y=\"%d\" text-anchor=\"middle\">arithmetic intensity, FLOP per byte of operands"
                 "</text>\n", (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8);
    fprintf(out, "<text transform=\"translate(16 %d) rotate(-90)\" text-anchor=\"middle\">GFLOP/s</text></g>\n",
            (TOP + HEIGHT - BOTTOM) / 2);
}

static void put_roof_of(const frame *f, double flops, double bytes, size_t d, const char *dashes, FILE *out)
{
    const double foot = fmax(pow(10, f->x0), pow(10, f->y0) / bytes); /* where the slope enters the frame */
    fprintf(out, "<path class=\"roof\" style=\"stroke:var(--d%zu)%s\" d=\"M%.1f %.1f L%.1f %.1f H%d\"/>\n", d % COLOURS,
            dashes, at_x(f, foot), at_y(f, foot * bytes), at_x(f, flops / bytes), at_y(f, flops), WIDTH - RIGHT);
}

/* Dashed above the f32 roof: that of f16 matrices, where the device has them. */
static void put_roof(const frame *f, const json_t *device, size_t d, FILE *out)
{
    const double flops = bench_peak_gflops(device, "f32"), bytes = bench_peak_gbytes(device),
                 matrix = bench_peak_gflops(device, "f16");
    if (flops <= 0 || bytes <= 0)
        return;
    if (matrix > flops)
        put_roof_of(f, matrix, bytes, d, ";stroke-dasharray:6 4", out);
    put_roof_of(f, flops, bytes, d, "", out);
}

static const char *const shapes[SHAPES] = {"M-4 0 a4 4 0 1 0 8 0 a4 4 0 1 0 -8 0", "M-4 -4 h8 v8 h-8 z",
                                           "M0 -5 L5 4 L-5 4 z", "M0 -5 L5 0 L0 5 L-5 0 z"};

/* In the corner that no roof reaches. */
static void put_legend(const json_t *device, size_t d, FILE *out)
{
    char name[BENCH_NAME];
    const double y = TOP + 18 * (double)(d + 1), flops = bench_peak_gflops(device, "f32"),
                 bytes = bench_peak_gbytes(device);
    fprintf(out, "<path class=\"point\" style=\"--of:var(--d%zu)\" transform=\"translate(%d %.0f)\" d=\"%s\"/>"
                 "<text x=\"%d\" y=\"%.0f\">", d % COLOURS, LEFT + 16, y, shapes[d % SHAPES], LEFT + 28, y + 4);
    bench_put_escaped(bench_device_name(device, name), out);
    if (flops > 0 && bytes > 0)
        fprintf(out, ": %.3g GFLOP/s, %.3g GB/s", flops, bytes);
    fputs("</text>\n", out);
}

/* Devices differ in colour and shape, forward passes are filled. */
static void put_point(const frame *f, const bench_row *row, size_t d, FILE *out)
{
    char name[BENCH_NAME];
    const double *v = row->figure, intensity = v[BENCH_FLOP] / v[BENCH_BYTES];
    const bool hollow = !strcmp(row->text[BENCH_PASS], "backward");
    fprintf(out,
            "<path class=\"point%s\" style=\"--of:var(--d%zu)\" transform=\"translate(%.1f %.1f)\" d=\"%s\"><title>",
            hollow ? " hollow" : "", d % COLOURS, at_x(f, intensity), at_y(f, v[BENCH_GFLOPS]), shapes[d % SHAPES]);
    bench_put_escaped(bench_row_name(row, name), out);
    fprintf(out, ": %.4g GFLOP/s, %.3g FLOP/byte, %.4g ms", v[BENCH_GFLOPS], intensity, v[BENCH_MS]);
    if (v[BENCH_ROOF_PERCENT] > 0)
        fprintf(out, ", %.1f%% of roof", v[BENCH_ROOF_PERCENT]);
    fputs("</title></path>\n", out);
}

bool bench_put_roofline(const json_t *doc, FILE *out)
{
    frame f;
    size_t d, i;
    const json_t *device, *result;
    if (!frame_of(doc, &f))
        return false;
    fprintf(out, "<svg viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"Roofline plot\">\n", WIDTH, HEIGHT);
    put_grid(&f, out);
    json_array_foreach(doc, d, device)
    {
        put_roof(&f, device, d, out);
        put_legend(device, d, out);
    }
    json_array_foreach(doc, d, device)
        json_array_foreach(json_object_get(device, "results"), i, result)
        {
            const bench_row row = bench_row_read(result);
            if (has_point(&row))
                put_point(&f, &row, d, out);
        }
    fputs("</svg>\n", out);
    return true;
}

/* ---- bars -------------------------------------------------------------------------------------------------------- */

enum { BAR = 13, GAP = 9, PAD = 6, NAMES = 450, VALUES = 60, AXIS = 46, TICKS = 5 };

static double figure_of(const json_t *device, const bench_row *row, enum bench_figure figure)
{
    const json_t *found = bench_find(device, row);
    const double value = found ? bench_row_read(found).figure[figure] : NAN;
    return isfinite(value) && value > 0 ? value : NAN;
}

static bool shown(const json_t *doc, const bench_row *row, enum bench_part part, enum bench_figure figure)
{
    bool any = false;
    for (size_t d = 0; d < json_array_size(doc); d++)
        any |= bench_part_of(row) == part && isfinite(figure_of(json_array_get(doc, d), row, figure));
    return any;
}

/* An end for an axis: the smallest of some round numbers that is not below x. */
static double round_up(double x)
{
    const double power = pow(10, floor(log10(x))), lead = x / power;
    static const double round[] = {1, 1.5, 2, 2.5, 3, 4, 5, 6, 8};
    for (size_t i = 0; i < sizeof round / sizeof *round; i++)
        if (lead <= round[i])
            return power * round[i];
    return power * 10;
}

static double at_bar(double value, double most)
{
    return value / most * (WIDTH - NAMES - VALUES);
}

static void put_bar_axis(double most, double height, const char *axis, FILE *out)
{
    fputs("<g class=\"grid\">", out);
    for (int i = 0; i <= TICKS; i++)
        fprintf(out, "<path d=\"M%.1f 0 V%.1f\"/><text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">%g</text>\n",
                NAMES + at_bar(most * i / TICKS, most), height, NAMES + at_bar(most * i / TICKS, most), height + 16,
                most * i / TICKS);
    fprintf(out, "<text x=\"%d\" y=\"%.1f\" text-anchor=\"middle\">%s</text></g>\n", (NAMES + WIDTH - VALUES) / 2,
            height + 36, axis);
}

/* Returns the height of the row. */
static double put_bar_row(const json_t *doc, const bench_row *row, enum bench_figure figure, double most, double y,
                          FILE *out)
{
    const size_t devices = json_array_size(doc);
    char name[BENCH_NAME];
    fprintf(out, "<text class=\"name\" x=\"%d\" y=\"%.1f\" text-anchor=\"end\">", NAMES - 6,
            y + (double)BAR * (double)devices / 2 + 4);
    bench_put_escaped(bench_row_name(row, name), out);
    fputs("</text>\n", out);
    for (size_t d = 0; d < devices; d++, y += BAR) {
        const double value = figure_of(json_array_get(doc, d), row, figure);
        if (isfinite(value))
            fprintf(out,
                    "<rect x=\"%d\" y=\"%.1f\" width=\"%.1f\" height=\"%d\" style=\"fill:var(--d%zu)\"/>"
                    "<text x=\"%.1f\" y=\"%.1f\">%.4g</text>\n",
                    NAMES, y, fmax(at_bar(value, most), 1), BAR - 2, d % COLOURS, NAMES + at_bar(value, most) + 4,
                    y + 10, value);
    }
    return BAR * (double)devices + GAP;
}

void bench_put_bars(const json_t *doc, const bench_row *rows, size_t count, enum bench_part part,
                    enum bench_figure figure, const char *axis, FILE *out)
{
    double most = 0, height = PAD, y = PAD;
    for (size_t i = 0; i < count; i++)
        if (shown(doc, &rows[i], part, figure)) {
            height += BAR * (double)json_array_size(doc) + GAP;
            for (size_t d = 0; d < json_array_size(doc); d++)
                most = fmax(most, figure_of(json_array_get(doc, d), &rows[i], figure)); /* fmax ignores NAN */
        }
    if (most <= 0)
        return;
    most = round_up(most);
    fprintf(out, "<svg class=\"bars\" viewBox=\"0 0 %d %.0f\" role=\"img\" aria-label=\"Bars: %s\">\n", WIDTH,
            height + AXIS, axis);
    put_bar_axis(most, height, axis, out);
    for (size_t i = 0; i < count; i++)
        if (shown(doc, &rows[i], part, figure))
            y += put_bar_row(doc, &rows[i], figure, most, y, out);
    fputs("</svg>\n", out);
}
