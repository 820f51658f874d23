/* Files: read whole with a limit, replaced and never overwritten. */
#ifndef BASE_FILE_H
#define BASE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

/* Reads the whole file; `*size` its bytes; the buffer has one extra NUL byte and is released with free(). Fails, naming
 * the path, when it is missing, a folder, unreadable or larger than `limit` bytes. */
char *cs_read_file(const char *path, size_t limit, size_t *size);

/* A file being written beside its final name. */
typedef struct cs_writer cs_writer;

/* Opens `path`.tmp-<pid> for writing. NULL with the error set when the folder is missing or not writable. */
cs_writer *cs_writer_open(const char *path);
/* The stream to write to; errors are remembered and reported by cs_writer_commit(). */
FILE *cs_writer_stream(cs_writer *w);
bool cs_writer_put(cs_writer *w, const void *data, size_t bytes);
/* Flushes, fsyncs, renames over the final name and fsyncs the folder; frees the writer. On failure (disk full, ...)
 * the temporary file is gone, the old file untouched and the error set. */
bool cs_writer_commit(cs_writer *w);
/* Drops the temporary file and the writer. NULL is fine. */
void cs_writer_abort(cs_writer *w);

/* Writes the whole file with the three calls above. */
bool cs_write_file(const char *path, const void *data, size_t bytes);

/* Writes the whole file without an fsync: for one of thousands in a folder that nobody reads before it is synced as a
 * whole and gets its name. */
bool cs_write_unsynced(const char *path, const void *data, size_t bytes);

/* Makes the folder and its missing parents. An existing folder is fine. */
bool cs_make_folder(const char *path);
/* Removes a folder and the plain files, links and folders in it; a missing one is fine. Fails for a link to a
 * folder. */
bool cs_remove_folder(const char *path);
/* A folder being made beside its final name, where it appears whole or not at all. */
typedef struct cs_folder cs_folder;

/* Makes `path`.tmp-<pid> to write into. What stands at `path` must be an empty folder or nothing, unless `replace`;
 * NULL with the error set, before any work is done, where it is something else. A link to a folder stays, and the
 * folder behind it is the one that is made. */
cs_folder *cs_folder_begin(const char *path, bool replace);
/* Where to write meanwhile. */
const char *cs_folder_path(const cs_folder *folder);
/* Syncs the folder, renames it to its final name, syncs the parent and removes what stood there before; frees. Its
 * files are the caller's to sync. On failure the temporary folder is gone, what stood there is there still and the
 * error is set. */
bool cs_folder_commit(cs_folder *folder);
/* Drops the temporary folder, keeping the error; frees. NULL is fine. */
void cs_folder_abort(cs_folder *folder);

/* Makes earlier renames in this folder durable. */
bool cs_sync_folder(const char *path);
/* The same for the folder that the path stands in. */
bool cs_sync_parent(const char *path);
bool cs_is_folder(const char *path);
bool cs_is_file(const char *path);

/* "<folder>/<name>", or `name` alone where it is absolute or `folder` is NULL or empty; free() it. */
char *cs_join(const char *folder, const char *name);
/* The folder that the path stands in, "." where it names none; free() it. */
char *cs_parent(const char *path);
/* The path's last part, within it. */
const char *cs_base_name(const char *path);

#endif
