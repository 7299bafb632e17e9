/* Makes the code of a function that answers a number. */
#ifndef MAKE_H
#define MAKE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef int (*function)(void);

/* Writes to @to a function that answers @value; how many bytes it has. */
#if defined(__x86_64__)
static size_t make(uint8_t *to, int value)
{
    to[0] = 0xb8; /* mov $value, %eax; ret */
    memcpy(to + 1, &value, 4);
    to[5] = 0xc3;
    return 6;
}
#elif defined(__riscv)
static uint32_t li_a0(int value)
{
    return (uint32_t)(value & 0x7ff) << 20 | 0x513;
}

static size_t make(uint8_t *to, int value)
{
    uint32_t code[2] = {li_a0(value), 0x8067}; /* ret */

    memcpy(to, code, 8);
    return 8;
}
#endif

#endif
