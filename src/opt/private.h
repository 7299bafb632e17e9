/* The passes. Each answers 0 or -ENOMEM. */
#ifndef TRIODE_OPT_PRIVATE_H
#define TRIODE_OPT_PRIVATE_H

#include "opt/opt.h"

int opt_phis(struct ir_unit *unit);
int opt_sink(struct ir_unit *unit);

#endif
