# SPDX-License-Identifier: GPL-2.0
kfi-modules += kfi_conformance
kfi_conformance-root := kfabric/conformance/kfi_conformance
