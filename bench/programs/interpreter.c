/* A byte-code interpreter with computed gotos. */
#include <stdint.h>
#include <stdio.h>

int main(void)
{
    enum { PUSH, ADD, XOR, DUP, DROP, DEC, JNZ, HALT };
    static const void *const labels[] = {&&push, &&add, &&xor, &&dup, &&drop, &&dec, &&jnz, &&halt};
    static const int8_t code[] = {PUSH, 3, ADD, DUP, PUSH, 5, XOR, ADD, DUP, DROP, DEC, JNZ, -12, HALT};
    uint64_t stack[64], *sp = stack, counter = 6000000;
    const int8_t *pc = code;

    *sp = 1;
#define NEXT goto *labels[*pc++]
    NEXT;
push:
    *++sp = (uint64_t)*pc++;
    NEXT;
add:
    sp--;
    sp[0] += sp[1];
    NEXT;
xor:
    sp--;
    sp[0] ^= sp[1];
    NEXT;
dup:
    sp[1] = sp[0];
    sp++;
    NEXT;
drop:
    sp--;
    NEXT;
dec:
    counter--;
    NEXT;
jnz:
    pc += counter ? *pc : 1;
    NEXT;
halt:
    printf("%llu\n", (unsigned long long)*sp);
    return 0;
}
