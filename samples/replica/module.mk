# SPDX-License-Identifier: GPL-2.0

kfi-modules += kfi_replica
kfi_replica-root := samples/replica/kfi_replica
