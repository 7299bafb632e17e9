/* In builds for gcov only (linked with --wrap=_exit): a user-mode program ends its process by
 * _exit(), past the place where gcov writes its counts. */
#include <stdnoreturn.h>

void __gcov_dump(void);
noreturn void __real__exit(int status);
noreturn void __wrap__exit(int status);

noreturn void __wrap__exit(int status)
{
    __gcov_dump();
    __real__exit(status);
}
