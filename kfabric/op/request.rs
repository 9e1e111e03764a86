// SPDX-License-Identifier: GPL-2.0

//! What is posted.

use super::{AtomicAction, Buffer, Kind, Options};
use crate::av::Name;
use crate::mr::{Access, RemoteSlice};
use crate::proto::tag::Tags;

/// What is posted.
pub(crate) struct Request {
    pub(crate) kind: Kind,
    pub(crate) options: Options,
    pub(crate) peer: Name,
    /// The receive context of the peer that messages and remote CQ data are for.
    pub(crate) peer_context: u16,
    pub(crate) remote: Option<RemoteSlice>,
    pub(crate) atomic: Option<AtomicAction>,
    /// Of a message its tag, of a receive those that it takes; `None`: it is untagged.
    pub(crate) tags: Option<Tags>,
    /// Of a tagged receive, whether a peer's tagged write or read may consume it.
    pub(crate) exposes: Access,
    pub(crate) buffer: Buffer,
}
