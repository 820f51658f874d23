#include "multimodal/synth.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>

#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "multimodal/synth_scene.h"

/* The file that says who made the folder, so that it may be replaced. */
static const char marker[] = "synth.json";

/* Each picture has its own draws, whatever the number of pictures; those of the test lie behind all of training. */
enum { DRAWS_PER_PICTURE_LOG2 = 20 };
static const uint64_t first_test_picture = (uint64_t)1 << 32;

uint32_t mm_synth_test_images(uint32_t images)
{
    return images < 10 ? 1 : images / 10;
}

static json_t *conversation(const mm_scene_turn *turns, int count)
{
    json_t *list = json_array();
    for (int i = 0; i < count; i++) {
        const char *before = i ? "" : "<image>\n";
        json_array_append_new(list, json_pack("{s:s, s:s+}", "from", "human", "value", before, turns[i].question));
        json_array_append_new(list, json_pack("{s:s, s:s}", "from", "gpt", "value", turns[i].answer));
    }
    return list;
}

static bool write_picture(const char *path, const mm_image *image)
{
    size_t size;
    void *png = mm_image_encode_png(image, &size);
    bool ok = png ? cs_write_unsynced(path, png, size) : cs_fail_in("%s", path);
    free(png);
    return ok;
}

/* The sample's line of the JSON file, and its picture. */
static bool write_sample(cs_writer *json, const char *folder, const char *split, uint32_t number, cs_random random,
                         mm_image *image)
{
    mm_scene scene;
    mm_scene_turn turns[MM_TALK_TURNS];
    mm_scene_random(&scene, &random);
    int count = mm_scene_talk(&scene, &random, turns);
    mm_scene_draw(&scene, image);
    char id[32], name[48];
    snprintf(id, sizeof id, "%s-%06" PRIu32, split, number);
    snprintf(name, sizeof name, "images/%s.png", id);
    json_t *sample = json_pack("{s:s, s:s, s:o}", "id", id, "image", name, "conversations", conversation(turns, count));
    char *text = sample ? json_dumps(sample, JSON_COMPACT) : NULL;
    json_decref(sample);
    if (!text)
        return cs_fail("%s: out of memory for sample %s", folder, id);
    bool ok = cs_writer_put(json, number ? ",\n" : "[\n", 2) && cs_writer_put(json, text, strlen(text));
    free(text);
    char *path = ok ? cs_join(folder, name) : NULL;
    ok = path && write_picture(path, image);
    free(path);
    return ok;
}

static bool write_split(const char *folder, const char *split, uint32_t count, uint64_t seed, uint64_t first)
{
    char name[16];
    snprintf(name, sizeof name, "%s.json", split);
    char *path = cs_join(folder, name);
    cs_writer *json = path ? cs_writer_open(path) : NULL;
    mm_image image = {0};
    bool ok = json && mm_image_new(MM_SCENE_SIZE, MM_SCENE_SIZE, &image);
    for (uint32_t i = 0; ok && i < count; i++) {
        cs_random random = {seed, CS_STREAM_SYNTH, (first + i) << DRAWS_PER_PICTURE_LOG2};
        ok = write_sample(json, folder, split, i, random, &image);
    }
    ok = ok && cs_writer_put(json, "\n]\n", 3);
    if (ok)
        ok = cs_writer_commit(json);
    else
        cs_writer_abort(json);
    mm_image_free(&image);
    free(path);
    return ok;
}

static bool write_marker(const mm_synth_options *o, const char *folder)
{
    char text[160];
    int n = snprintf(text, sizeof text,
                     "{\"generator\": \"csmoe synth\", \"images\": %" PRIu32 ", \"seed\": %" PRIu64 "}\n", o->images,
                     o->seed);
    char *path = cs_join(folder, marker);
    bool ok = path && cs_write_file(path, text, (size_t)n);
    free(path);
    return ok;
}

static bool write_all(const mm_synth_options *o, const char *folder)
{
    char *images = cs_join(folder, "images");
    bool ok = images && cs_make_folder(images) && write_split(folder, "train", o->images, o->seed, 0) &&
              write_split(folder, "test", mm_synth_test_images(o->images), o->seed, first_test_picture) &&
              write_marker(o, folder);
    sync();
    free(images);
    return ok;
}

/* Whether the folder may be replaced: it is absent, empty, or holds nothing but what this file writes. */
static bool may_replace(const char *folder)
{
    static const char *const ours[] = {marker, "train.json", "test.json", "images"};
    DIR *d = opendir(folder);
    if (!d)
        return errno == ENOENT || cs_fail("%s: cannot make the data set here: %s", folder, strerror(errno));
    int known = 0, marked = 0, others = 0;
    for (struct dirent *e; (e = readdir(d));) {
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
            continue;
        bool found = false;
        for (size_t i = 0; i < sizeof ours / sizeof *ours; i++)
            found = found || !strcmp(e->d_name, ours[i]);
        known += found;
        others += !found;
        marked += !strcmp(e->d_name, marker);
    }
    closedir(d);
    return others + known == 0 || (marked && !others) ||
           cs_fail("%s: the folder holds something else; name a new or empty one", folder);
}

bool mm_synth_write(const mm_synth_options *options)
{
    if (options->images == 0)
        return cs_fail("%s: a data set needs at least one picture", options->folder);
    if (!may_replace(options->folder))
        return false;
    cs_folder *f = cs_folder_begin(options->folder, true);
    if (f && write_all(options, cs_folder_path(f)))
        return cs_folder_commit(f);
    cs_folder_abort(f);
    return false;
}
