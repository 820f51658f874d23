#include "multimodal/synth_scene.h"

#include <stdlib.h>

const char *const mm_color_names[MM_SCENE_COLORS] = {"red", "green", "blue", "yellow", "purple", "orange"};
const char *const mm_shape_names[MM_SCENE_SHAPES] = {"ring", "square", "triangle", "cross"};
const char *const mm_background_names[MM_SCENE_BACKGROUNDS] = {"black", "gray", "navy"};
const char *const mm_place_names[MM_SCENE_PLACES] = {"top", "left", "right", "bottom"};

/* Bright objects on dark backgrounds, so that what is an object does not depend on what is behind it. */
static const uint8_t colors[MM_SCENE_COLORS][3] = {
    {235, 40, 45}, {45, 190, 75}, {60, 120, 255}, {250, 225, 45}, {175, 70, 215}, {250, 140, 30},
};
static const uint8_t backgrounds[MM_SCENE_BACKGROUNDS][3] = {{12, 12, 14}, {72, 72, 72}, {18, 22, 70}};

/* The middle of each place; the largest objects fit in without touching one another. */
static const int middles[MM_SCENE_PLACES][2] = {{32, 12}, {12, 32}, {52, 32}, {32, 52}};
enum { MIN_HALF = 10, MAX_HALF = 11, JITTER = 1, SHADE = 10 };

static int around_zero(cs_random *random, int most)
{
    return (int)cs_random_below(random, (uint32_t)(2 * most + 1)) - most;
}

void mm_scene_random(mm_scene *scene, cs_random *random)
{
    /* Two and three objects twice as often as one and four: most questions compare or count. */
    static const int counts[6] = {1, 2, 2, 3, 3, 4};
    uint32_t order[MM_SCENE_PLACES] = {0, 1, 2, 3};
    *scene = (mm_scene){.background = (int)cs_random_below(random, MM_SCENE_BACKGROUNDS)};
    int count = counts[cs_random_below(random, 6)];
    cs_random_shuffle(random, order, MM_SCENE_PLACES);
    for (int i = 0; i < count; i++) {
        mm_object *o = &scene->places[order[i]];
        o->there = true;
        o->color = (int)cs_random_below(random, MM_SCENE_COLORS);
        o->shape = (int)cs_random_below(random, MM_SCENE_SHAPES);
        o->half = MIN_HALF + (int)cs_random_below(random, MAX_HALF - MIN_HALF + 1);
        o->dx = around_zero(random, JITTER);
        o->dy = around_zero(random, JITTER);
        for (int c = 0; c < 3; c++)
            o->shade[c] = around_zero(random, SHADE);
    }
}

int mm_scene_count(const mm_scene *scene, int color, int shape)
{
    int count = 0;
    for (int i = 0; i < MM_SCENE_PLACES; i++) {
        const mm_object *o = &scene->places[i];
        count += o->there && (color < 0 || o->color == color) && (shape < 0 || o->shape == shape);
    }
    return count;
}

/* Whether (x, y), measured from the middle, lies in the shape of half-width `half`. The shapes differ in large parts
 * (middle, upper and lower corners), which small models tell apart within minutes; disc and square they do not. */
static bool inside(int shape, int x, int y, int half)
{
    switch (shape) {
    case 0:
        return x * x + y * y <= half * half && 4 * (x * x + y * y) > half * half;
    case 1:
        return abs(x) <= half * 6 / 7 && abs(y) <= half * 6 / 7;
    case 2:
        return abs(y) <= half && 2 * abs(x) <= y + half;
    default:
        return abs(x) <= half && abs(y) <= half && (3 * abs(x) <= half || 3 * abs(y) <= half);
    }
}

enum { SAMPLES = 4, UNIT = 2 * SAMPLES };

/* How many of the SAMPLES^2 points of a pixel the object covers; coordinates in 1 / UNIT of a pixel. */
static int coverage(const mm_object *o, int x, int y, int centre_x, int centre_y)
{
    int half = o->half * UNIT, covered = 0;
    for (int sy = 0; sy < SAMPLES; sy++)
        for (int sx = 0; sx < SAMPLES; sx++)
            covered += inside(o->shape, x * UNIT + 2 * sx + 1 - centre_x * UNIT,
                              y * UNIT + 2 * sy + 1 - centre_y * UNIT, half);
    return covered;
}

static void draw_object(const mm_object *o, const int middle[2], mm_image *image)
{
    int centre_x = middle[0] + o->dx, centre_y = middle[1] + o->dy;
    for (int y = centre_y - MAX_HALF; y < centre_y + MAX_HALF; y++) {
        for (int x = centre_x - MAX_HALF; x < centre_x + MAX_HALF; x++) {
            int covered = coverage(o, x, y, centre_x, centre_y), all = SAMPLES * SAMPLES;
            uint8_t *rgb = image->rgb + 3 * (y * MM_SCENE_SIZE + x);
            for (int c = 0; c < 3; c++) {
                int v = colors[o->color][c] + o->shade[c];
                v = v < 0 ? 0 : v > 255 ? 255 : v;
                rgb[c] = (uint8_t)((rgb[c] * (all - covered) + v * covered + all / 2) / all);
            }
        }
    }
}

void mm_scene_draw(const mm_scene *scene, mm_image *image)
{
    for (int i = 0; i < MM_SCENE_SIZE * MM_SCENE_SIZE * 3; i++)
        image->rgb[i] = backgrounds[scene->background][i % 3];
    for (int i = 0; i < MM_SCENE_PLACES; i++)
        if (scene->places[i].there)
            draw_object(&scene->places[i], middles[i], image);
}
