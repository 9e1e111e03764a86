# SPDX-License-Identifier: GPL-2.0
kfi-modules += kfi_bench
kfi_bench-root := kfabric/bench/kfi_bench
