// SPDX-License-Identifier: GPL-2.0

//! Hints for what an info is of.

use kfabric::prelude::*;

/// Those that name its domain.
pub(crate) fn domain_of(info: &Info) -> Hints<'_> {
    Hints {
        provider: Some(info.provider.as_str()),
        fabric: Some(info.fabric.as_str()),
        domain: Some(info.domain.as_str()),
        net: Some(info.net),
        ..Hints::default()
    }
}

/// Those for endpoints of its kind, which can what it can.
pub(crate) fn like(info: &Info) -> Hints<'_> {
    Hints {
        caps: info.caps,
        order: info.order,
        endpoint_type: Some(info.endpoint_type),
        ..domain_of(info)
    }
}
