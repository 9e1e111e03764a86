# SPDX-License-Identifier: GPL-2.0
kfi-modules += kfi_bench
kfi_bench-root := kfabric/bench/kfi_bench

# What it is compared with uses nothing of kfabric.
obj-m += kfi_bare.o
kfi_bare-y := $(addprefix kfabric/bench/bare/,kfi_bare.o buffers.o far.o near.o socket.o)
