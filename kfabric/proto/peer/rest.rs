// SPDX-License-Identifier: GPL-2.0

//! The end of a session that nobody uses: asked for by one side, said by the other.
//!
//! Who asks has nothing outstanding, and sends nothing that is sequenced until the other has answered. So when the
//! other has nothing outstanding either, as soon as it looks, neither side has, and the session ends without a loss.
//! See Documentation/wire.rst, Idle.

use super::super::session::{End, State};
use super::{Peer, Storage};

/// Who asks for the end.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rest {
    /// This side, until when it waits for an answer.
    asks: Option<u64>,
    /// It is still to be said.
    due: bool,
    /// The peer, and this side has sent nothing since.
    asked: bool,
}

impl Rest {
    /// Whether this side has asked, or is about to.
    pub(super) fn is_asked_for(&self) -> bool {
        self.asks.is_some()
    }
}

impl<S: Storage> Peer<S> {
    /// Asks for the end of the session, if it is open and nothing is outstanding on either side, as far as this one
    /// knows; whether it does. Nothing is submitted until the answer: the end ([`End::Idle`]), or a frame of the
    /// peer's, which needs the session. If neither comes in time, the link is lost.
    pub fn rest(&mut self, now: u64) -> bool {
        if self.session.state() != State::Open || self.is_pending() || !self.is_quiet() {
            return false;
        }
        if !self.rests() {
            let until = now.saturating_add(self.session.settings().dial);
            (self.rest.asks, self.rest.due) = (Some(until), true);
        }
        true
    }

    /// Whether this side has asked for the end, and there is no answer.
    pub fn rests(&self) -> bool {
        self.rest.is_asked_for()
    }

    /// How long an answer is waited for. Without a link other times hold.
    pub(super) fn rest_until(&self) -> Option<u64> {
        self.rest.asks.filter(|_| self.session.is_open())
    }

    /// Whether the question is to be sent now.
    pub(super) fn take_rest(&mut self) -> bool {
        core::mem::take(&mut self.rest.due)
    }

    /// The peer asks. If it has not executed all that was sent, it will not ask any more when it does.
    pub(super) fn asked_to_rest(&mut self) {
        self.rest.asked = self.ring.is_empty();
    }

    /// The peer has sent something that is sequenced: it goes on.
    pub(super) fn wake(&mut self) {
        self.rest = Rest::default();
    }

    /// This side sends something that is sequenced: it goes on.
    pub(super) fn stir(&mut self) {
        self.rest.asked = false;
    }

    /// Ends the session if the peer asks for it and nothing stands against it.
    pub(super) fn settle_rest(&mut self, now: u64) {
        if self.rest.asked
            && self.session.is_open()
            && !self.session.owes_hello()
            && self.is_quiet()
        {
            self.end(now, End::Idle);
        }
    }

    /// The peer has ended the session, as it was asked to.
    pub(super) fn rested(&mut self, now: u64) {
        // It has said so itself: no goodbye is owed.
        self.lose(now);
        self.end(now, End::Idle);
    }
}
