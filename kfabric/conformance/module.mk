# SPDX-License-Identifier: GPL-2.0
kfi-modules += kfi_conformance
kfi_conformance-root := kfabric/conformance/kfi_conformance
# Of no use to a profile, and a sixth of what its compilation takes.
kfi_conformance-rustflags := -Cdebuginfo=0
