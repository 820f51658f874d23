#include "vk/internal.h"

#include <stdlib.h>

#include "base/memory.h"

uint64_t vk_hash(const void *data, size_t bytes, uint64_t seed)
{
    const uint8_t *p = data;
    uint64_t hash = 0xcbf29ce484222325u ^ seed;
    for (size_t i = 0; i < bytes; i++)
        hash = (hash ^ p[i]) * 0x100000001b3u;
    return hash;
}

static size_t slot_of(const struct vk_map *map, uint64_t hash)
{
    return (hash ^ hash >> 32) & (map->capacity - 1);
}

static void insert(struct vk_map *map, uint64_t hash, uint32_t index1)
{
    size_t slot = slot_of(map, hash);
    while (map->entries[slot].index1)
        slot = (slot + 1) & (map->capacity - 1);
    map->entries[slot].hash = hash;
    map->entries[slot].index1 = index1;
    map->count++;
}

bool vk_map_put(struct vk_map *map, uint64_t hash, uint32_t index)
{
    if (2 * (map->count + 1) > map->capacity) {
        struct vk_map grown = {.capacity = map->capacity ? 2 * map->capacity : 64};
        grown.entries = cs_alloc(grown.capacity, sizeof *grown.entries, "a hash table");
        if (!grown.entries)
            return false;
        for (size_t i = 0; i < map->capacity; i++)
            if (map->entries[i].index1)
                insert(&grown, map->entries[i].hash, map->entries[i].index1);
        free(map->entries);
        *map = grown;
    }
    insert(map, hash, index + 1);
    return true;
}

uint32_t vk_map_next(const struct vk_map *map, uint64_t hash, size_t *probe)
{
    if (!map->capacity)
        return VK_MAP_NONE;
    for (;;) {
        const struct vk_map_entry *entry = &map->entries[(slot_of(map, hash) + *probe) & (map->capacity - 1)];
        ++*probe;
        if (!entry->index1)
            return VK_MAP_NONE;
        if (entry->hash == hash)
            return entry->index1 - 1;
    }
}

void vk_map_clear(struct vk_map *map)
{
    free(map->entries);
    *map = (struct vk_map){0};
}
