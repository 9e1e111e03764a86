// SPDX-License-Identifier: GPL-2.0

//! How an operation is to be done.

use super::Level;

/// How a send, a write, a read, a commit or an atomic is to be done.
///
/// By default it completes when the bytes are visible at the peer, and waits for nothing. Source:
/// the flags of fi_sendmsg(3), fi_writemsg(3) and fi_atomicmsg(3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// What the completion promises.
    pub level: Level,
    /// 64 bits for the peer's completion queue.
    ///
    /// With a message they go with its bytes. Those of a write consume a receive there, and arrive
    /// after the level is reached: with [`Level::Committed`], after the bytes are durable. Source:
    /// FI_REMOTE_CQ_DATA.
    pub data: Option<u64>,
    /// It waits until all that was posted before to the same peer has completed, and what is
    /// posted to that peer afterwards waits behind it.
    ///
    /// For endpoints with [`Caps::FENCE`](crate::info::Caps::FENCE). Source: FI_FENCE.
    pub fence: bool,
    /// If it goes well, it leaves no completion: only counters see it, and its context is dropped
    /// in the context of whoever completes it. A failure is told as ever.
    ///
    /// Its buffer must not be owned memory, which would have nobody to come back to. Source:
    /// FI_SELECTIVE_COMPLETION of fi_cq(3).
    pub silent: bool,
    /// Another post follows at once, or a wait at the completion queue, so that the provider need not begin before
    /// that.
    ///
    /// A hint. Over links what is posted so to a peer leaves together with what follows, in as few segments as it
    /// fits. It leaves as well when a thread comes to wait at the operation's own completion queue, where none waits
    /// and nothing for another peer was posted so; that thread does what a worker would have been woken for. If
    /// nothing follows, it leaves all the same, at most some ten milliseconds later, and earlier if much of it waits.
    /// A post that is refused is none that follows. Where nothing is gained by waiting, as in memory, it is
    /// ignored. Source: FI_MORE.
    pub more: bool,
}

impl Options {
    /// The default, for constants.
    pub const NONE: Options = Options {
        level: Level::Delivered,
        data: None,
        fence: false,
        silent: false,
        more: false,
    };
}

impl Default for Options {
    fn default() -> Self {
        Self::NONE
    }
}
