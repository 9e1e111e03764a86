// SPDX-License-Identifier: GPL-2.0

//! Connection messages: what one end says to the other.

use super::PrivateData;
use crate::av::Name;
use crate::provider::AnyEndpoint;
use kernel::prelude::*;
use kernel::sync::rcu;

/// One end of a connection, as the other knows it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Party {
    /// Its name.
    pub(super) name: Name,
    /// Its endpoint's number.
    pub(super) number: u64,
}

/// What a connection message says.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Says {
    Request,
    Accept,
    Reject(Error),
    Shutdown,
}

/// A message from one end to the other, by which connections begin and end.
///
/// To a provider it is opaque: a value without pointers.
#[derive(Clone, Copy)]
pub struct Message {
    pub(super) from: Party,
    pub(super) says: Says,
    /// Chosen at random by who requests, and in each answer: others can't answer.
    pub(super) cookie: u64,
    pub(super) data: PrivateData,
}

/// Has a message brought to a name.
///
/// # Errors
/// Those of [`crate::provider::Endpoint::tell`].
pub(super) fn send(
    number: u64,
    transport: &dyn AnyEndpoint,
    to: &Name,
    says: Says,
    cookie: u64,
    data: PrivateData,
) -> Result {
    let name = transport.name();
    let posts = rcu::read_lock();
    let sent = transport.tell(
        to,
        &Message {
            from: Party { name, number },
            says,
            cookie,
            data,
        },
    );
    drop(posts);
    sent
}
