// SPDX-License-Identifier: GPL-2.0

//! The cases, by what they are about.

use crate::runner::Case;

mod atomic;
mod av;
mod campaign;
mod cm;
mod cntr;
mod commit;
mod context;
mod cq;
mod device;
mod directed;
mod domain;
mod endpoint;
mod fence;
mod hints;
mod info;
mod inject;
mod keys;
mod large;
mod load;
mod memory;
mod more;
mod mr;
mod msg;
mod multi;
mod order;
mod place;
mod remote_data;
mod reuse;
mod rma;
mod scalable;
mod silent;
mod tagged;
mod tagged_rma;
mod unplug;

/// All of them.
pub(crate) const ALL: &[&[Case]] = &[
    info::CASES,
    place::CASES,
    domain::CASES,
    av::CASES,
    endpoint::CASES,
    cq::CASES,
    context::CASES,
    msg::CASES,
    tagged::CASES,
    tagged_rma::CASES,
    directed::CASES,
    multi::CASES,
    scalable::life::CASES,
    scalable::named::CASES,
    scalable::apart::CASES,
    rma::CASES,
    reuse::CASES,
    mr::CASES,
    keys::CASES,
    remote_data::CASES,
    commit::CASES,
    atomic::CASES,
    order::CASES,
    fence::CASES,
    silent::CASES,
    cntr::object::CASES,
    cntr::kinds::CASES,
    cntr::ends::CASES,
    cntr::wait::CASES,
    cntr::callback::CASES,
    cntr::connected::CASES,
    memory::CASES,
    hints::CASES,
    device::CASES,
    inject::CASES,
    more::CASES,
    cm::connect::CASES,
    cm::traffic::CASES,
    cm::end::CASES,
    cm::events::CASES,
    unplug::domain::CASES,
    unplug::domain::connections::CASES,
    load::CASES,
    large::CASES,
];

/// All but the last, which need gigabytes.
pub(crate) fn all_but_large() -> &'static [&'static [Case]] {
    ALL.split_last().map_or(ALL, |(_, others)| others)
}

/// Those of which a peer may be on another host, as long as they ask of it only what can be asked from afar.
pub(crate) const BETWEEN: &[&[Case]] = &[
    av::CASES,
    endpoint::CASES,
    msg::CASES,
    tagged::CASES,
    tagged_rma::CASES,
    directed::CASES,
    rma::CASES,
    reuse::CASES,
    mr::CASES,
    keys::CASES,
    remote_data::CASES,
    commit::CASES,
    atomic::CASES,
    order::CASES,
    fence::CASES,
    silent::CASES,
    cntr::kinds::CASES,
    cntr::ends::CASES,
    memory::CASES,
    hints::CASES,
    inject::CASES,
    more::CASES,
];

/// Those about order alone, which hold also where everything else is reordered.
pub(crate) const ORDER: &[&[Case]] = &[order::CASES, fence::CASES];

/// Those of the campaign: one that compares, and one until the provider is unplugged.
pub(crate) const CAMPAIGN: &[Case] = campaign::CASES;

/// Those that leave no provider behind: one of them to a loading of the provider's module.
pub(crate) const UNPLUG: &[Case] = unplug::CASES;
