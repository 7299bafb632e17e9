#include "harness.h"
unsigned test_information(void)
{
    return 0;
}
