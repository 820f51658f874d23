#include "base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/memory.h"

char *cs_read_file(const char *path, size_t limit, size_t *size)
{
    FILE *f = fopen(path, "rb");
    if (!f)
        return cs_fail("%s: cannot open: %s", path, strerror(errno)), NULL;
    struct stat st;
    char *data = NULL;
    if (fstat(fileno(f), &st) != 0 || S_ISDIR(st.st_mode)) {
        cs_fail("%s: is a folder, not a file", path);
    } else if (st.st_size < 0 || (size_t)st.st_size > limit) {
        cs_fail("%s: %lld bytes, but at most %zu are accepted here", path, (long long)st.st_size, limit);
    } else if ((data = cs_alloc((size_t)st.st_size + 1, 1, path))) {
        *size = fread(data, 1, (size_t)st.st_size, f);
        if (*size != (size_t)st.st_size) {
            cs_fail("%s: cannot read: %s", path, ferror(f) ? strerror(errno) : "the file became shorter");
            free(data);
            data = NULL;
        }
    }
    fclose(f);
    return data;
}

struct cs_writer {
    FILE *stream;
    char *path, *temporary;
};

static void writer_free(cs_writer *w)
{
    free(w->path);
    free(w->temporary);
    free(w);
}

cs_writer *cs_writer_open(const char *path)
{
    cs_writer *w = cs_alloc(1, sizeof *w, "a file writer");
    if (!w)
        return NULL;
    size_t n = strlen(path) + 32;
    w->path = cs_strdup(path);
    w->temporary = cs_alloc(n, 1, "a file name");
    if (w->path && w->temporary) {
        snprintf(w->temporary, n, "%s.tmp-%ld", path, (long)getpid());
        w->stream = fopen(w->temporary, "wb");
        if (w->stream)
            return w;
        cs_fail("%s: cannot write: %s", path, strerror(errno));
    }
    writer_free(w);
    return NULL;
}

FILE *cs_writer_stream(cs_writer *w)
{
    return w->stream;
}

bool cs_writer_put(cs_writer *w, const void *data, size_t bytes)
{
    if (fwrite(data, 1, bytes, w->stream) == bytes)
        return true;
    return cs_fail("%s: cannot write: %s", w->path, strerror(errno));
}

void cs_writer_abort(cs_writer *w)
{
    if (!w)
        return;
    if (w->stream)
        fclose(w->stream);
    unlink(w->temporary);
    writer_free(w);
}

bool cs_sync_parent(const char *path)
{
    char *folder = cs_parent(path);
    bool ok = folder && cs_sync_folder(folder);
    free(folder);
    return ok;
}

bool cs_writer_commit(cs_writer *w)
{
    bool ok = !ferror(w->stream) && fflush(w->stream) == 0 && fsync(fileno(w->stream)) == 0;
    int why = errno;
    ok = fclose(w->stream) == 0 && ok;
    w->stream = NULL;
    if (ok && rename(w->temporary, w->path) != 0) {
        ok = false;
        why = errno;
    }
    if (!ok) {
        cs_fail("%s: cannot write: %s", w->path, strerror(why));
        cs_writer_abort(w);
        return false;
    }
    ok = cs_sync_parent(w->path);
    writer_free(w);
    return ok;
}

bool cs_write_file(const char *path, const void *data, size_t bytes)
{
    cs_writer *w = cs_writer_open(path);
    if (!w)
        return false;
    if (!cs_writer_put(w, data, bytes)) {
        cs_writer_abort(w);
        return false;
    }
    return cs_writer_commit(w);
}

bool cs_write_unsynced(const char *path, const void *data, size_t bytes)
{
    FILE *f = fopen(path, "wb");
    bool ok = f && fwrite(data, 1, bytes, f) == bytes;
    ok = f && fclose(f) == 0 && ok;
    return ok || cs_fail("%s: cannot write: %s", path, strerror(errno));
}

bool cs_make_folder(const char *path)
{
    char *part = cs_strdup(path);
    if (!part)
        return false;
    bool ok = true;
    for (char *p = part + 1; ok; p++) {
        if (*p && *p != '/')
            continue;
        char end = *p;
        *p = 0;
        if (mkdir(part, 0777) != 0 && errno != EEXIST)
            ok = cs_fail("%s: cannot make the folder: %s", part, strerror(errno));
        *p = end;
        if (!end)
            break;
    }
    if (ok && !cs_is_folder(path))
        ok = cs_fail("%s: is a file, not a folder", path);
    free(part);
    return ok;
}

/* The folder, unless it is a link: what that names may be anybody's. */
static DIR *open_unless_link(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    if (fd >= 0 && !d)
        close(fd);
    return d;
}

bool cs_remove_folder(const char *path)
{
    DIR *d = open_unless_link(path);
    if (!d)
        return errno == ENOENT || cs_fail("%s: cannot open the folder: %s", path, strerror(errno));
    bool ok = true;
    for (struct dirent *e; ok && (e = readdir(d));) {
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
            continue;
        char *inner = cs_join(path, e->d_name);
        struct stat st;
        if (!inner)
            ok = false;
        else if (lstat(inner, &st) == 0 && S_ISDIR(st.st_mode))
            ok = cs_remove_folder(inner);
        else if (unlink(inner) != 0)
            ok = cs_fail("%s: cannot remove: %s", inner, strerror(errno));
        free(inner);
    }
    closedir(d);
    if (ok && rmdir(path) != 0)
        ok = cs_fail("%s: cannot remove: %s", path, strerror(errno));
    return ok;
}

bool cs_sync_folder(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY);
    if (fd < 0)
        return cs_fail("%s: cannot open the folder: %s", path, strerror(errno));
    /* Some file systems refuse fsync on a folder with EINVAL; their renames are ordered already. */
    bool ok = fsync(fd) == 0 || errno == EINVAL || cs_fail("%s: cannot sync: %s", path, strerror(errno));
    close(fd);
    return ok;
}

bool cs_is_folder(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

bool cs_is_file(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

/* ---- folders that appear whole ----------------------------------------------------------------------------------- */

struct cs_folder {
    char *path, *temporary, *aside;
};

/* Without the slashes at its end. */
static char *trimmed(const char *path)
{
    char *name = cs_strdup(path);
    for (size_t n = name ? strlen(name) : 0; n > 1 && name[n - 1] == '/'; n--)
        name[n - 1] = 0;
    return name;
}

/* What a folder of this name is made as: a link is followed, because only the folder behind it can be replaced. */
static char *resolved(const char *path)
{
    struct stat st;
    char *name = trimmed(path);
    if (!name || lstat(name, &st) != 0 || !S_ISLNK(st.st_mode))
        return name;
    char *target = realpath(name, NULL);
    if (!target)
        cs_fail("%s: cannot follow the link: %s", name, strerror(errno));
    free(name);
    return target;
}

/* "<path>.<suffix>-<pid>" */
static char *beside(const char *path, const char *suffix)
{
    size_t size = strlen(path) + strlen(suffix) + 32;
    char *name = cs_alloc(size, 1, "a folder name");
    if (name)
        snprintf(name, size, "%s.%s-%ld", path, suffix, (long)getpid());
    return name;
}

static bool is_free(const char *path)
{
    DIR *d = opendir(path);
    if (!d)
        return errno == ENOENT || cs_fail("%s: exists already: %s", path, strerror(errno));
    bool empty = true;
    for (struct dirent *e; (e = readdir(d));)
        empty = empty && (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."));
    closedir(d);
    return empty || cs_fail("%s: exists already and is not empty", path);
}

static void folder_free(cs_folder *f)
{
    free(f->path);
    free(f->temporary);
    free(f->aside);
    free(f);
}

cs_folder *cs_folder_begin(const char *path, bool replace)
{
    if (!replace && !is_free(path))
        return NULL;
    cs_folder *f = cs_alloc(1, sizeof *f, "a folder");
    if (!f)
        return NULL;
    f->path = resolved(path);
    if (f->path && (f->temporary = beside(f->path, "tmp")) && (f->aside = beside(f->path, "old")) &&
        cs_make_folder(f->temporary))
        return f;
    folder_free(f);
    return NULL;
}

const char *cs_folder_path(const cs_folder *f)
{
    return f->temporary;
}

/* Renames into place; what stood there is moved aside first. */
static bool put_in_place(const cs_folder *f, bool *replaced)
{
    *replaced = rename(f->path, f->aside) == 0;
    if (!*replaced && errno != ENOENT)
        return cs_fail("%s: cannot replace: %s", f->path, strerror(errno));
    if (rename(f->temporary, f->path) == 0)
        return true;
    cs_fail("%s: cannot make the folder: %s", f->path, strerror(errno));
    if (*replaced)
        rename(f->aside, f->path);
    return false;
}

bool cs_folder_commit(cs_folder *f)
{
    bool replaced;
    if (!cs_sync_folder(f->temporary) || !put_in_place(f, &replaced)) {
        cs_folder_abort(f);
        return false;
    }
    bool ok = cs_sync_parent(f->path) && (!replaced || cs_remove_folder(f->aside));
    folder_free(f);
    return ok;
}

void cs_folder_abort(cs_folder *f)
{
    if (!f)
        return;
    const cs_kept_error why = cs_keep_error();
    cs_remove_folder(f->temporary);
    cs_restore_error(&why);
    folder_free(f);
}

char *cs_join(const char *folder, const char *name)
{
    if (!folder || !*folder || *name == '/')
        return cs_strdup(name);
    size_t n = strlen(folder) + strlen(name) + 2;
    char *path = cs_alloc(n, 1, "a path");
    if (path)
        snprintf(path, n, "%s%s%s", folder, folder[strlen(folder) - 1] == '/' ? "" : "/", name);
    return path;
}

char *cs_parent(const char *path)
{
    const char *slash = strrchr(path, '/');
    char *folder = cs_strdup(slash ? path : ".");
    if (folder && slash)
        folder[slash == path ? 1 : slash - path] = 0;
    return folder;
}

const char *cs_base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}
