// SPDX-License-Identifier: GPL-2.0

//! What is to happen to what one side sends over a link, and when.

/// Where in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Before its first byte.
    Start,
    /// In the midst of its header.
    Header,
    /// In the midst of its payload; after the header, if it has none.
    Payload,
}

/// What happens there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// The link breaks.
    Cut,
    /// The link ends, as if the sender had closed it.
    End,
    /// A bit of the next byte changes.
    Flip,
    /// Nothing comes through any more, either way, and nobody is told.
    Mute,
}

/// What is to happen to what one side sends over a link.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    /// The address of that side.
    pub(crate) from: u8,
    /// Which frame of the link, from 0.
    pub(crate) frame: usize,
    pub(crate) place: Place,
    pub(crate) act: Act,
}
