/* Recursion: calls and returns. */
#include <stdio.h>

static __attribute__((noinline)) int fib(int n)
{
    return n < 2 ? n : fib(n - 1) + fib(n - 2);
}

int main(void)
{
    volatile int n = 35;

    printf("%d\n", fib(n));
    return 0;
}
