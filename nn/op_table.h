/* The operators' rows; each is defined beside its kernels' recording code in nn/op_*.c. */
#ifndef NN_OP_TABLE_H
#define NN_OP_TABLE_H

#include "nn/nn.h"

#endif
