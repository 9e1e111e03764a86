// SPDX-License-Identifier: GPL-2.0

//! Rules of the machine that tests break, to see that the simulation would see it.
//!
//! Outside tests nothing is ever broken, and no code comes of this.

use super::{Peer, Storage};

/// A rule, broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // their comments say what is wrong
pub(in super::super) enum Broken {
    // A duplicate is executed again.
    Duplicates,
    // Replies go after everything else.
    RepliesLast,
    // A reply acknowledges what the replies behind it are about.
    WholeAck,
    // The acknowledgement of a reply is looked at before its kind.
    AckFirst,
    // A frame that is sent again acknowledges what was executed since.
    FreshAck,
    // A resumed link begins one frame too early.
    ResumeEarly,
    // A resumed link begins one frame too late.
    ResumeLate,
    // A sender doesn't wait for credit.
    Overdraw,
    // A receiver does not give credit back.
    KeepCredit,
    // An operation ends before its frames are acknowledged.
    EndEarly,
    // Pieces that follow a refused one are executed.
    ForgetFailure,
    // An order that was asked for is not kept.
    Overtake,
}

impl<S: Storage> Peer<S> {
    /// Whether the rule is broken.
    #[cfg(test)]
    pub(super) fn breaks(&self, rule: Broken) -> bool {
        self.broken == Some(rule)
    }

    /// Whether the rule is broken: it is not.
    #[cfg(not(test))]
    #[inline(always)]
    pub(super) const fn breaks(&self, _rule: Broken) -> bool {
        false
    }
}
