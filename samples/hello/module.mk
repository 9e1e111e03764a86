# SPDX-License-Identifier: GPL-2.0

kfi-modules += kfi_hello
kfi_hello-root := samples/hello/kfi_hello
