# SPDX-License-Identifier: GPL-2.0
kfi-modules += kfi_loopback
kfi_loopback-root := providers/loopback/kfi_loopback
