/* One picture of the built-in data set: what is in it, how it is drawn, what is asked about it. Used by synth.c and its
 * test. */
#ifndef MULTIMODAL_SYNTH_SCENE_H
#define MULTIMODAL_SYNTH_SCENE_H

#include <stdbool.h>

#include "base/random.h"
#include "multimodal/image.h"

/* Pictures are MM_SCENE_SIZE pixels a side and have four places, one object at most in each. */
enum { MM_SCENE_SIZE = 64, MM_SCENE_PLACES = 4, MM_SCENE_COLORS = 6, MM_SCENE_SHAPES = 4, MM_SCENE_BACKGROUNDS = 3 };

typedef struct mm_object {
    bool there;
    int color, shape; /* indices of mm_color_names, mm_shape_names */
    int half;         /* half its width, in pixels */
    int dx, dy;       /* pixels off the middle of its place */
    int shade[3];     /* added to the colour's channels */
} mm_object;

typedef struct mm_scene {
    mm_object places[MM_SCENE_PLACES]; /* reading order: top, left, right, bottom */
    int background;                    /* index of mm_background_names */
} mm_scene;

extern const char *const mm_color_names[MM_SCENE_COLORS];
extern const char *const mm_shape_names[MM_SCENE_SHAPES];
extern const char *const mm_background_names[MM_SCENE_BACKGROUNDS];
extern const char *const mm_place_names[MM_SCENE_PLACES];

/* Draws lots for a scene of one to four objects. */
void mm_scene_random(mm_scene *scene, cs_random *random);

/* Objects of the scene with this colour and shape; a negative one matches all. */
int mm_scene_count(const mm_scene *scene, int color, int shape);

/* Paints the scene with antialiased edges into `image`, [MM_SCENE_SIZE, MM_SCENE_SIZE, 3]. Integers only: the same
 * pixels everywhere. */
void mm_scene_draw(const mm_scene *scene, mm_image *image);

enum { MM_TALK_TEXT = 160, MM_TALK_TURNS = 8 };

typedef struct mm_scene_turn {
    char question[MM_TALK_TEXT], answer[MM_TALK_TEXT];
} mm_scene_turn;

/* Six to eight different questions with the one right answer each; returns their number. Yes and no are equally likely
 * wherever the scene allows both. */
int mm_scene_talk(const mm_scene *scene, cs_random *random, mm_scene_turn turns[MM_TALK_TURNS]);

#endif
