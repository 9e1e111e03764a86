// SPDX-License-Identifier: GPL-2.0

//! What an operation does.

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Sends a message. Source: fi_msg(3).
    Send,
    /// Receives a message, or the remote CQ data of a write.
    Recv,
    /// Writes to a peer's region. Source: fi_rma(3).
    Write,
    /// Reads from a peer's region.
    Read,
    /// Makes a range of a peer's region durable.
    Commit,
    /// Changes words of a peer's region, each at once. Source: fi_atomic(3).
    Atomic,
    /// A completion only: a receive that a peer's write or commit with remote CQ data consumed, or a tagged write. Its
    /// length is theirs; the receive's buffer is untouched, but for a tagged write, whose bytes are there. Source:
    /// FI_REMOTE_WRITE of fi_cq(3).
    RemoteWrite,
    /// A completion only: a receive that a peer's tagged read consumed, which has taken so many of its bytes. Source:
    /// FI_REMOTE_READ of fi_cq(3).
    RemoteRead,
}

impl Kind {
    /// The name in statistics and messages.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Send => "send",
            Kind::Recv => "recv",
            Kind::Write => "write",
            Kind::Read => "read",
            Kind::Commit => "commit",
            Kind::Atomic => "atomic",
            Kind::RemoteWrite => "remote_write",
            Kind::RemoteRead => "remote_read",
        }
    }
}
