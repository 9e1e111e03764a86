# SPDX-License-Identifier: GPL-2.0
kfi-modules += kfi_powercut
kfi_powercut-root := kfabric/powercut/kfi_powercut
kfi_powercut-c := kfabric/powercut/writeback
# Of no use to a profile.
kfi_powercut-rustflags := -Cdebuginfo=0
