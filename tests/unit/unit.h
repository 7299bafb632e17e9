/* What every cmocka test file includes, in the order cmocka demands. */
#ifndef TRIODE_TESTS_UNIT_H
#define TRIODE_TESTS_UNIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#endif
