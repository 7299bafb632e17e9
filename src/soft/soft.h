/* The soft engine: a whole PC's CPUs and interrupt controllers in user space. */
#ifndef TRIODE_SOFT_H
#define TRIODE_SOFT_H

#include "engine/engine.h"

extern const struct engine_ops soft_engine_ops;

#endif
