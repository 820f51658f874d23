/* Documents to files, the format by the file's ending. */
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/file.h"
#include "tools/bench_report.h"
#include "tools/options.h"

static bool write_json(const json_t *doc, FILE *out)
{
    return (json_dumpf(doc, out, JSON_INDENT(1) | JSON_REAL_PRECISION(9)) == 0 && fputc('\n', out) != EOF) ||
           cs_fail("out of memory or disk space for the results");
}

static const struct {
    const char *ending;
    bool (*write)(const json_t *doc, FILE *out);
} formats[] = {
    {".md", bench_write_markdown},
    {".csv", bench_write_csv},
    {".json", write_json},
    {".html", bench_write_html},
};

/* Index of the format; -1 where the ending is another. */
static int format_of(const char *path)
{
    const char *dot = strrchr(path, '.');
    for (size_t i = 0; dot && i < CS_COUNT(formats); i++)
        if (!strcmp(dot, formats[i].ending))
            return (int)i;
    return -1;
}

bool bench_output_known(const char *path)
{
    return format_of(path) >= 0 || cs_fail("%s: the ending says in which format results are written: .md, .csv, .json "
                                           "or .html", path);
}

static bool save(const json_t *doc, const char *path, bool (*write)(const json_t *, FILE *))
{
    cs_writer *w = cs_writer_open(path);
    if (!w)
        return false;
    if (write(doc, cs_writer_stream(w)))
        return cs_writer_commit(w);
    cs_writer_abort(w);
    return cs_fail_in("%s", path);
}

bool bench_save(const json_t *doc, const char *path)
{
    return bench_output_known(path) && save(doc, path, formats[format_of(path)].write);
}

bool bench_save_json(const json_t *doc, const char *path)
{
    return save(doc, path, write_json);
}
