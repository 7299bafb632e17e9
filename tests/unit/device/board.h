/* A board for one device: its environment writes down what the device does to it. */
#ifndef TRIODE_TESTS_BOARD_H
#define TRIODE_TESTS_BOARD_H

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "../unit.h"

#include "base/clock.h"
#include "device/device.h"

struct board {
    struct device_env env;
    struct device_bus ports, memory;
    struct stream stream;
    struct device *dev;
    int line[24];
    unsigned edges[24]; /* rises of each line */
    struct device_timer *timers[8];
    unsigned timer_count;
    unsigned requests[4];
    /* Back end. */
    u8 sent[256];
    size_t sent_len, send_room;
    unsigned rooms;
};

static void board_irq(void *opaque, unsigned line, int level)
{
    struct board *b = opaque;

    assert_true(line < 24);
    b->edges[line] += level && !b->line[line];
    b->line[line] = level;
}

static void board_timer(void *opaque, struct device_timer *timer, u64 deadline_ns)
{
    struct board *b = opaque;
    unsigned i = 0;

    while (i < b->timer_count && b->timers[i] != timer)
        i++;
    assert_true(i < 8);
    b->timers[i] = timer;
    if (i == b->timer_count)
        b->timer_count++;
    timer->deadline_ns = deadline_ns;
}

static void board_request(void *opaque, enum device_request request)
{
    ((struct board *)opaque)->requests[request]++;
}

static size_t board_send(void *backend, const u8 *data, size_t len)
{
    struct board *b = backend;

    if (len > b->send_room)
        len = b->send_room;
    assert_true(b->sent_len + len <= sizeof(b->sent));
    memcpy(b->sent + b->sent_len, data, len);
    b->sent_len += len;
    b->send_room -= len;
    return len;
}

static void board_room(void *backend)
{
    ((struct board *)backend)->rooms++;
}

static struct device_place board_place(struct board *b)
{
    return (struct device_place){
        .env = &b->env, .ports = &b->ports, .memory = &b->memory, .stream = &b->stream};
}

static struct board *board_new(const char *name, const char *options)
{
    struct board *b = calloc(1, sizeof(*b));
    struct device_place place;
    struct err err;

    assert_non_null(b);
    b->env = (struct device_env){NULL, b, board_irq, board_timer, board_request};
    b->stream = (struct stream){.backend = b, .send = board_send, .room = board_room};
    b->send_room = sizeof(b->sent);
    device_bus_init(&b->ports);
    device_bus_init(&b->memory);
    place = board_place(b);
    assert_int_equal(device_create(&b->dev, name, options, &place, &err), 0);
    return b;
}

static void board_free(struct board *b)
{
    device_destroy(b->dev);
    assert_int_equal(b->ports.count + b->memory.count, 0);
    free(b);
}

static inline u64 in(struct board *b, u16 port, unsigned size)
{
    u64 value;

    device_bus_read(&b->ports, port, size, &value);
    return value;
}

static inline u8 inb(struct board *b, u16 port)
{
    return (u8)in(b, port, 1);
}

static inline void out(struct board *b, u16 port, unsigned size, u64 value)
{
    device_bus_write(&b->ports, port, size, value);
}

static inline void outb(struct board *b, u16 port, u8 value)
{
    out(b, port, 1, value);
}

/* Fires every timer that is armed, as if its time had come. */
static inline void board_fire(struct board *b)
{
    for (unsigned i = 0; i < b->timer_count; i++) {
        if (!b->timers[i]->deadline_ns)
            continue;
        b->timers[i]->deadline_ns = 0;
        b->timers[i]->fire(b->timers[i]->opaque);
    }
}

/* Saves the device and loads it into a second one, which replaces it. */
static inline void board_migrate(struct board *b, const char *options)
{
    const char *name = b->dev->name;
    size_t len = device_state_size(b->dev);
    u8 *state = malloc(len);
    struct device_place place = board_place(b);

    assert_non_null(state);
    device_save(b->dev, state);
    device_destroy(b->dev);
    b->timer_count = 0;
    memset(b->line, 0, sizeof(b->line));
    assert_int_equal(device_create(&b->dev, name, options, &place, NULL), 0);
    assert_int_equal(device_load(b->dev, state, len - 1), -EINVAL);
    state[0] ^= 0x80;
    assert_int_equal(device_load(b->dev, state, len), -EINVAL);
    state[0] ^= 0x80;
    assert_int_equal(device_load(b->dev, state, len), 0);
    free(state);
}

#endif
