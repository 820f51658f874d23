/* The one configuration reader: JSON files and --set overrides checked against tables, which also write the effective
 * configuration and the reference documentation. */
#ifndef BASE_CONFIG_H
#define BASE_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

/* What a field accepts, and what the member it fills must be. */
enum cs_type {
    CS_BOOL,   /* bool */
    CS_INT,    /* any integer of 4 or 8 bytes */
    CS_FLOAT,  /* float or double */
    CS_STRING, /* char *, owned by the configuration; NULL (JSON null) only where the default is null */
    CS_ENUM,   /* int-sized: the index into `choices` */
    CS_FLOATS, /* float[N]: a list of exactly N numbers */
};

typedef struct cs_field {
    const char *key; /* within its section */
    enum cs_type type;
    size_t offset, bytes;       /* CS_MEMBER(struct, member) */
    double min, max;            /* of numbers, inclusive; both 0: whatever the member can hold */
    const char *fallback;       /* the default as JSON text; NULL: the key is required */
    const char *doc;            /* for the reference: meaning, unit */
    const char *const *choices; /* NULL-ended, for CS_ENUM */
} cs_field;

#define CS_MEMBER(type, member) offsetof(type, member), sizeof(((type *)0)->member)

typedef struct cs_section {
    const char *name; /* dotted, "vision.moe"; "" for keys of the outermost object */
    const char *doc;  /* a sentence for the reference */
    const cs_field *fields;
    size_t count;
    void *target; /* the struct that the fields' offsets count from; zeroed before its first use */
} cs_section;

/* A list of sections in depth-first order ("", "vision", "vision.moe", "text", ...). */
typedef struct cs_config {
    const cs_section *sections;
    size_t count;
} cs_config;

/* Fills every target: defaults, then the JSON file at `path` (NULL: none), then the `sets` overrides "key=value" in
 * order (dotted keys; the value is read as JSON, and as a plain string where it is none). Refuses unknown and duplicate
 * keys, wrong types, values out of range and missing required keys: "train.json:12: unknown key
 * 'optimizer.lerning_rate'; did you mean 'learning_rate'?", "--set steps=-1: ...". On failure the targets hold an
 * unfinished mixture; release them all the same. */
bool cs_config_read(const cs_config *config, const char *path, const char *const *sets, size_t set_count);

/* The same from `size` bytes of such a file's text (NULL: none); `name` is what errors call it. */
bool cs_config_parse(const cs_config *config, const char *name, const char *text, size_t size,
                     const char *const *sets, size_t set_count);

/* Frees the strings and sets them to NULL. */
void cs_config_release(const cs_config *config);

/* Writes the effective configuration as JSON in the tables' order, every number with as many digits as reading it back
 * exactly needs. Stream errors are the stream's (cs_writer_commit() reports them). */
void cs_config_write(const cs_config *config, FILE *out);

/* Whether two configurations of the same tables hold the same values; false with the error set to the first difference:
 * "vision.width is 64, not 32". */
bool cs_config_same(const cs_config *a, const cs_config *b);

/* Prints the reference in Markdown: a heading and a table of keys per section. */
void cs_config_describe(const cs_config *config, FILE *out);

#endif
