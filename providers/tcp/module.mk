# SPDX-License-Identifier: GPL-2.0
kfi-modules += kfi_tcp
kfi_tcp-root := providers/tcp/kfi_tcp
kfi_tcp-c := providers/tcp/door
