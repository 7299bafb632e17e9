/* Calls through tables of functions, as virtual methods are. */
#include <stdint.h>
#include <stdio.h>

struct shape;
struct methods {
    uint32_t (*area)(const struct shape *);
    void (*grow)(struct shape *);
};
struct shape {
    const struct methods *methods;
    uint32_t a, b;
};

static uint32_t square_area(const struct shape *s) { return s->a * s->a; }
static uint32_t box_area(const struct shape *s) { return s->a * s->b; }
static uint32_t round_area(const struct shape *s) { return s->a * s->a * 22 / 7; }
static void grow_one(struct shape *s) { s->a++; }
static void grow_both(struct shape *s) { s->a += 2, s->b++; }

int main(void)
{
    static const struct methods kinds[] = {
        {square_area, grow_one}, {box_area, grow_both}, {round_area, grow_one}};
    static struct shape shapes[64];
    uint32_t sum = 0;

    for (uint32_t i = 0; i < 64; i++)
        shapes[i] = (struct shape){&kinds[i * 7 % 3], i, i + 1};
    for (int round = 0; round < 200000; round++)
        for (int i = 0; i < 64; i++) {
            struct shape *s = &shapes[(i * 5 + round) & 63];

            sum += s->methods->area(s);
            s->methods->grow(s);
        }
    printf("%u\n", sum);
    return 0;
}
