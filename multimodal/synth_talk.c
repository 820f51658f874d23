/* Questions with one right answer each. Every kind is one function, which draws lots for a question of its kind and
 * returns false where this draw gives none that is unambiguous about this scene. */
#include "multimodal/synth_scene.h"

#include <stdio.h>
#include <string.h>

typedef bool talk_kind(const mm_scene *scene, cs_random *random, mm_scene_turn *turn);

static const char *const numbers[MM_SCENE_PLACES + 1] = {"zero", "one", "two", "three", "four"};

#define ASK(turn, ...) snprintf((turn)->question, sizeof(turn)->question, __VA_ARGS__)
#define ANSWER(turn, ...) snprintf((turn)->answer, sizeof(turn)->answer, __VA_ARGS__)

static bool coin(cs_random *random)
{
    return cs_random_below(random, 2);
}

static int any_color(cs_random *random)
{
    return (int)cs_random_below(random, MM_SCENE_COLORS);
}

static int any_shape(cs_random *random)
{
    return (int)cs_random_below(random, MM_SCENE_SHAPES);
}

/* The place of one of the scene's objects. */
static int any_object(const mm_scene *scene, cs_random *random)
{
    for (;;) {
        int place = (int)cs_random_below(random, MM_SCENE_PLACES);
        if (scene->places[place].there)
            return place;
    }
}

/* Whether "the red object" means one. */
static bool has_own_color(const mm_scene *scene, const mm_object *o)
{
    return mm_scene_count(scene, o->color, -1) == 1;
}

/* Whether "the ring" means one. */
static bool has_own_shape(const mm_scene *scene, const mm_object *o)
{
    return mm_scene_count(scene, -1, o->shape) == 1;
}

static const char *color_of(const mm_object *o)
{
    return mm_color_names[o->color];
}

static const char *shape_of(const mm_object *o)
{
    return mm_shape_names[o->shape];
}

static bool count_objects(const mm_scene *scene, cs_random *random, mm_scene_turn *turn)
{
    (void)random;
    ASK(turn, "How many objects are there?");
    ANSWER(turn, "%s", numbers[mm_scene_count(scene, -1, -1)]);
    return true;
}

static bool count_color(const mm_scene *scene, cs_random *random, mm_scene_turn *turn)
{
    int color = cs_random_below(random, 4) ? scene->places[any_object(scene, random)].color : any_color(random);
    ASK(turn, "How many %s objects are there?", mm_color_names[color]);
    ANSWER(turn, "%s", numbers[mm_scene_count(scene, color, -1)]);
    return true;
}

static bool count_shape(const mm_scene *scene, cs_random *random, mm_scene_turn *turn)
{
    int shape = cs_random_below(random, 4) ? scene->places[any_object(scene, random)].shape : any_shape(random);
    ASK(turn, "How many %s%ss are there?", mm_shape_names[shape], shape == MM_SCENE_SHAPES - 1 ? "e" : "");
    ANSWER(turn, "%s", numbers[mm_scene_count(scene, -1, shape)]);
    return true;
}

/* "a" or "an". */
static const char *article(int color)
{
    return mm_color_names[color][0] == 'o' ? "an" : "a";
}

/* Yes or no is chosen first and then a question that has this answer, or the answers would not be balanced; rarely a
 * scene has none (all shapes are there). */
enum { TRIES = 16 };

static bool is_there_one_feature(const mm_scene *scene, cs_random *random, mm_scene_turn *turn)
{
    bool yes = coin(random), by_color = coin(random);
    for (int i = 0; i < TRIES; i++) {
        const mm_object *o = &scene->places[any_object(scene, random)];
        int color = by_color ? yes ? o->color : any_color(random) : -1;
        int shape = by_color ? -1 : yes ? o->shape : any_shape(random);
        if ((mm_scene_count(scene, color, shape) > 0) != yes)
            continue;
        if (by_color)
            ASK(turn, "Is there %s %s object?", article(color), mm_color_names[color]);
        else
            ASK(turn, "Is there a %s?", mm_shape_names[shape]);
        ANSWER(turn, "%s", yes ? "yes" : "no");
        return true;
    }
    return false;
}

/* A "no" shares the colour or the shape with an object, so that neither alone tells. */
static bool is_there_an_object(const mm_scene *scene, cs_random *random, mm_scene_turn *turn)
{
    bool yes = coin(random), keep_color = coin(random);
    for (int i = 0; i < TRIES; i++) {
        const mm_object *o = &scene->places[any_object(scene, random)];
        int color = yes || keep_color ? o->color : any_color(random);
        int shape = yes || !keep_color ? o->shape : any_shape(random);
        if ((mm_scene_count(scene, color, shape) > 0) != yes)
            continue;
        ASK(turn, "Is there %s %s %s?", article(color), mm_color_names[color], mm_shape_names[shape]);
        ANSWER(turn, "%s", yes ? "yes" : "no");
        return true;
    }
    return false;
}

static bool color_of_shape(const mm_scene *scene, cs_random *random, mm_scene_turn *turn)
{
    const mm_object *o = &scene->places[any_object(scene, random)];
    ASK(turn, "What color is the %s?", shape_of(o));
    ANSWER(turn, "%s", color_of(o));
    return has_own_shape(scene, o);
}

static bool color_at(const mm_scene *scene, cs_random *random, mm_scene_turn *turn)
{
    int place = any_object(scene, random);
    ASK(turn, "What color is the %s object?", mm_place_names[place]);
    ANSWER(turn, "%s", color_of(&scene->places[place]));
    return true;
}

static bool shape_of_color(const mm_scene *scene, cs_random *random, mm_scene_turn *turn)
{
    const mm_object *o = &scene->places[any_object(scene, random)];
    ASK(turn, "What shape is the %s object?", color_of(o));
    ANSWER(turn, "%s", shape_of(o));
    return has_own_color(scene, o);
}

static bool shape_at(const mm_scene *scene, cs_random *random, mm_scene_turn *turn)
{
    int place = any_object(scene, random);
    ASK(turn, "What shape is the %s object?", mm_place_names[place]);
    ANSWER(turn, "%s", shape_of(&scene->places[place]));
    return true;
}

static bool where_is_color(const mm_scene *scene, cs_random *random, mm_scene_turn *turn)
{
    int place = any_object(scene, random);
    ASK(turn, "Where is the %s object?", color_of(&scene->places[place]));
    ANSWER(turn, "%s", mm_place_names[place]);
    return has_own_color(scene, &scene->places[place]);
}

static bool where_is_shape(const mm_scene *scene, cs_random *random, mm_scene_turn *turn)
{
    int place = any_object(scene, random);
    ASK(turn, "Where is the %s?", shape_of(&scene->places[place]));
    ANSWER(turn, "%s", mm_place_names[place]);
    return has_own_shape(scene, &scene->places[place]);
}

/* Two objects, one of them further left (right, up, down): top and bottom stand in one column, left and right in one
 * row. Either order is as likely, hence yes and no. */
static bool relation(const mm_scene *scene, cs_random *random, mm_scene_turn *turn)
{
    static const char *const words[2][2] = {{"left of", "right of"}, {"above", "below"}};
    static const int where[MM_SCENE_PLACES][2] = {{1, 0}, {0, 1}, {2, 1}, {1, 2}};
    for (int i = 0; i < TRIES; i++) {
        bool vertical = coin(random), second = coin(random);
        int a = any_object(scene, random), b = any_object(scene, random);
        const mm_object *first = &scene->places[a], *other = &scene->places[b];
        int difference = where[a][vertical] - where[b][vertical];
        if (difference == 0 || !has_own_color(scene, first) || !has_own_color(scene, other))
            continue;
        ASK(turn, "Is the %s object %s the %s object?", color_of(first), words[vertical][second], color_of(other));
        ANSWER(turn, "%s", (difference > 0) == second ? "yes" : "no");
        return true;
    }
    return false;
}

/* One of the two colours at least is there; as many of both is a "no". */
static bool more_than(const mm_scene *scene, cs_random *random, mm_scene_turn *turn)
{
    bool yes = coin(random);
    for (int i = 0; i < TRIES; i++) {
        int seen = scene->places[any_object(scene, random)].color, other = any_color(random);
        bool swap = coin(random);
        int a = swap ? other : seen, b = swap ? seen : other;
        if (a == b || (mm_scene_count(scene, a, -1) > mm_scene_count(scene, b, -1)) != yes)
            continue;
        ASK(turn, "Are there more %s objects than %s objects?", mm_color_names[a], mm_color_names[b]);
        ANSWER(turn, "%s", yes ? "yes" : "no");
        return true;
    }
    return false;
}

static bool what_is_at(const mm_scene *scene, cs_random *random, mm_scene_turn *turn)
{
    int place = (int)cs_random_below(random, MM_SCENE_PLACES);
    const mm_object *o = &scene->places[place];
    ASK(turn, "What is at the %s?", mm_place_names[place]);
    ANSWER(turn, "%s%s%s", o->there ? color_of(o) : "nothing", o->there ? " " : "", o->there ? shape_of(o) : "");
    return true;
}

/* Only where both answers are possible. */
static bool is_something_at(const mm_scene *scene, cs_random *random, mm_scene_turn *turn)
{
    bool yes = coin(random);
    if (mm_scene_count(scene, -1, -1) == MM_SCENE_PLACES)
        return false;
    for (int i = 0; i < TRIES; i++) {
        int place = (int)cs_random_below(random, MM_SCENE_PLACES);
        if (scene->places[place].there != yes)
            continue;
        ASK(turn, "Is there an object at the %s?", mm_place_names[place]);
        ANSWER(turn, "%s", yes ? "yes" : "no");
        return true;
    }
    return false;
}

static bool is_color_at(const mm_scene *scene, cs_random *random, mm_scene_turn *turn)
{
    bool yes = coin(random);
    int place = any_object(scene, random), right = scene->places[place].color;
    int other = (right + 1 + (int)cs_random_below(random, MM_SCENE_COLORS - 1)) % MM_SCENE_COLORS;
    ASK(turn, "Is the %s object %s?", mm_place_names[place], mm_color_names[yes ? right : other]);
    ANSWER(turn, "%s", yes ? "yes" : "no");
    return true;
}

static bool is_shape_at(const mm_scene *scene, cs_random *random, mm_scene_turn *turn)
{
    bool yes = coin(random);
    int place = any_object(scene, random), right = scene->places[place].shape;
    int other = (right + 1 + (int)cs_random_below(random, MM_SCENE_SHAPES - 1)) % MM_SCENE_SHAPES;
    ASK(turn, "Is the %s object a %s?", mm_place_names[place], mm_shape_names[yes ? right : other]);
    ANSWER(turn, "%s", yes ? "yes" : "no");
    return true;
}

/* Half of the scenes have three or four. */
static bool more_than_two(const mm_scene *scene, cs_random *random, mm_scene_turn *turn)
{
    (void)random;
    ASK(turn, "Are there more than two objects?");
    ANSWER(turn, "%s", mm_scene_count(scene, -1, -1) > 2 ? "yes" : "no");
    return true;
}

static bool background(const mm_scene *scene, cs_random *random, mm_scene_turn *turn)
{
    (void)random;
    ASK(turn, "What color is the background?");
    ANSWER(turn, "%s", mm_background_names[scene->background]);
    return true;
}

/* All objects with their places in reading order; asked about every picture. */
static void description(const mm_scene *scene, mm_scene_turn *turn)
{
    size_t n = 0;
    ASK(turn, "Describe the picture.");
    for (int i = 0; i < MM_SCENE_PLACES; i++) {
        const mm_object *o = &scene->places[i];
        if (o->there)
            n += (size_t)snprintf(turn->answer + n, sizeof turn->answer - n, "%s%s %s %s", n ? ", " : "",
                                  mm_place_names[i], color_of(o), shape_of(o));
    }
}

/* Weight and kind. What is asked most is what a small model learns within minutes: to look at a named place, and to
 * count. Finding an object by its colour or shape and comparing take it many times longer. */
static const struct {
    uint32_t weight;
    talk_kind *ask;
} kinds[] = {
    {16, color_at},          {16, shape_at},        {10, what_is_at},    {12, count_objects},
    {8, background},         {12, is_something_at}, {2, is_color_at},    {2, is_shape_at},
    {10, more_than_two},     {1, count_color},      {1, count_shape},    {1, is_there_one_feature},
    {1, is_there_an_object}, {1, color_of_shape},   {1, shape_of_color}, {1, where_is_color},
    {1, where_is_shape},     {1, relation},         {1, more_than},
};
enum { KINDS = sizeof kinds / sizeof *kinds };

static talk_kind *any_kind(cs_random *random)
{
    uint32_t total = 0, i = 0;
    for (size_t k = 0; k < KINDS; k++)
        total += kinds[k].weight;
    uint32_t lot = cs_random_below(random, total);
    while (lot >= kinds[i].weight)
        lot -= kinds[i++].weight;
    return kinds[i].ask;
}

static bool was_asked(const mm_scene_turn *turns, int count)
{
    for (int i = 0; i < count; i++)
        if (!strcmp(turns[i].question, turns[count].question))
            return true;
    return false;
}

int mm_scene_talk(const mm_scene *scene, cs_random *random, mm_scene_turn turns[MM_TALK_TURNS])
{
    int wanted = MM_TALK_TURNS - 2 + (int)cs_random_below(random, 3), count = 0;
    int described = (int)cs_random_below(random, (uint32_t)wanted);
    while (count < wanted) {
        if (count == described)
            description(scene, &turns[count++]);
        else
            count += any_kind(random)(scene, random, &turns[count]) && !was_asked(turns, count);
    }
    return count;
}
