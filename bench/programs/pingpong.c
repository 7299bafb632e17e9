/* One byte back and forth between two processes. */
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

int main(void)
{
    int there[2], back[2];
    char byte = 1;
    long sum = 0;

    if (pipe(there) || pipe(back))
        return 1;
    if (!fork()) {
        close(there[1]);
        while (read(there[0], &byte, 1) == 1)
            if (write(back[1], &byte, 1) != 1)
                break;
        _exit(0);
    }
    for (int i = 0; i < 20000; i++) {
        if (write(there[1], &byte, 1) != 1 || read(back[0], &byte, 1) != 1)
            return 1;
        sum += byte;
    }
    close(there[1]);
    wait(NULL);
    printf("%ld\n", sum);
    return 0;
}
