// SPDX-License-Identifier: GPL-2.0

//! Hints for what an info is of.

use kernel::prelude::*;
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

/// What a provider has for the endpoint of a service, or for one that talks with such. `ENODATA`: nothing.
pub(crate) fn service_of(provider: &str, service: Option<&str>) -> Result<Info> {
    let hints = Hints {
        caps: Caps::MSG | Caps::SERVICE,
        endpoint_type: Some(EndpointType::Rdm),
        provider: Some(provider),
        source: service.map(|service| Place::Service {
            node: None,
            service: Some(service),
        }),
        ..Hints::default()
    };
    getinfo(&hints)?.first().copied().ok_or(ENODATA)
}
