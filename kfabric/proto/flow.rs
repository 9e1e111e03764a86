// SPDX-License-Identifier: GPL-2.0

//! Credits: how much a peer may send that meets no receive.
//!
//! By receive context, in messages and in bytes, counted since the session began. The receiver has
//! [`Grants`], the sender [`Credits`]. What a peer can make the receiver hold is at most the
//! windows: it is granted anew only what was given back. Source: Documentation/wire.rst, Credits.

use super::chain::{Chain, Linked, Links};
use super::violation::Violation;
use core::ops::DerefMut;

/// Messages and bytes. Messages wrap around; bytes don't live that long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// Messages.
    pub messages: u32,
    /// Bytes.
    pub bytes: u64,
}

impl Amount {
    /// That many.
    pub const fn new(messages: u32, bytes: u64) -> Amount {
        Amount { messages, bytes }
    }

    const fn plus(self, other: Amount) -> Amount {
        Amount {
            messages: self.messages.wrapping_add(other.messages),
            bytes: self.bytes.wrapping_add(other.bytes),
        }
    }

    const fn minus(self, other: Amount) -> Amount {
        Amount {
            messages: self.messages.wrapping_sub(other.messages),
            bytes: self.bytes.wrapping_sub(other.bytes),
        }
    }

    const fn covers(self, needed: Amount) -> bool {
        self.messages >= needed.messages && self.bytes >= needed.bytes
    }
}

/// What a context of this side has granted, and to be handed in as storage.
///
/// # Invariants
///
/// `received` is at most `told`, which is at most the window and `returned`, where `returned` is at
/// most `received`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Grant {
    told: Amount,
    received: Amount,
    returned: Amount,
    due: bool,
}

/// The receiver's side.
#[derive(Debug)]
pub struct Grants<S> {
    contexts: S,
    window: Amount,
    /// The longest message that takes bytes.
    eager: u64,
    due: usize,
}

impl<S: DerefMut<Target = [Grant]>> Grants<S> {
    /// A window of so much for each context. It holds at least one message of `eager` bytes.
    pub fn new(contexts: S, window: Amount, eager: u32) -> Self {
        let eager = eager.into();
        let mut grants = Grants {
            contexts,
            // Amounts are compared by their distance.
            window: Amount {
                messages: window.messages.clamp(1, 1 << 30),
                bytes: window.bytes.clamp(eager, 1 << 62),
            },
            eager,
            due: 0,
        };
        grants.clear();
        grants
    }

    /// Begins anew, for another session.
    pub fn clear(&mut self) {
        self.contexts.iter_mut().for_each(|grant| {
            *grant = Grant::default();
        });
        self.repeat();
    }

    /// By context, what was received.
    #[cfg(test)]
    pub(super) fn received(&self) -> Vec<Amount> {
        self.contexts.iter().map(|grant| grant.received).collect()
    }

    /// Everything is to be told again, on another link.
    pub fn repeat(&mut self) {
        self.due = self.contexts.len();
        self.contexts.iter_mut().for_each(|grant| grant.due = true);
    }

    /// Whether a peer may send so much now.
    ///
    /// # Errors
    ///
    /// [`Violation::Context`]: there is no such context. [`Violation::Credit`]: it may not.
    pub fn check(&self, context: u16, amount: Amount) -> Result<(), Violation> {
        let grant = self.contexts.get(usize::from(context));
        let grant = grant.ok_or(Violation::Context)?;
        if grant.told.minus(grant.received).covers(amount) {
            Ok(())
        } else {
            Err(Violation::Credit)
        }
    }

    /// It was sent, after [`Grants::check`].
    pub fn take(&mut self, context: u16, amount: Amount) {
        if let Some(grant) = self.contexts.get_mut(usize::from(context)) {
            grant.received = grant.received.plus(amount);
        }
    }

    /// A receive has taken it, or nobody will.
    pub fn give_back(&mut self, context: u16, amount: Amount) {
        let Some(grant) = self.contexts.get_mut(usize::from(context)) else {
            return;
        };
        grant.returned = grant.returned.plus(amount);
        let untold = self.window.plus(grant.returned).minus(grant.told);
        let left = grant.told.minus(grant.received);
        // A quarter of the window is worth a frame. So is what a sender may wait for: with less
        // than this left, a message that fits the window could wait for ever.
        let due = untold.messages >= (self.window.messages / 4).max(1)
            || untold.bytes >= (self.window.bytes / 4).max(1)
            || (untold.bytes > 0 && left.bytes < self.eager);
        if due && !grant.due {
            grant.due = true;
            self.due += 1;
        }
    }

    /// Whether something is to be told.
    pub fn is_due(&self) -> bool {
        self.due > 0
    }

    /// A context whose grant is to be told, and what is granted since the session began.
    pub fn tell(&mut self) -> Option<(u16, Amount)> {
        if self.due == 0 {
            return None;
        }
        let window = self.window;
        let mut contexts = self.contexts.iter_mut().enumerate();
        let (at, grant) = contexts.find(|(_, grant)| grant.due)?;
        grant.due = false;
        grant.told = window.plus(grant.returned);
        self.due -= 1;
        Some((u16::try_from(at).ok()?, grant.told))
    }
}

/// What a context of the peer has granted, and to be handed in as storage.
#[derive(Clone, Copy, Debug, Default)]
pub struct Credit {
    granted: Amount,
    used: Amount,
    /// The search in which a message to it had to wait.
    waits: u32,
    /// What waits for nothing but credit of this context; of the sender's operations.
    waiting: Chain,
    /// It may have credit for the first that waits, and is in the chain of those.
    ready: bool,
    links: Links,
}

impl Linked for Credit {
    fn links(&mut self) -> &mut Links {
        &mut self.links
    }
}

/// The sender's side.
#[derive(Debug)]
pub struct Credits<S> {
    contexts: S,
    search: u32,
    /// Contexts whose first that waits is to be tried.
    ready: Chain,
}

impl<S: DerefMut<Target = [Credit]>> Credits<S> {
    /// Without credit.
    pub fn new(contexts: S) -> Self {
        let mut credits = Credits {
            contexts,
            search: 1,
            ready: Chain::new(),
        };
        credits.clear();
        credits
    }

    /// Begins anew, for another session.
    pub fn clear(&mut self) {
        self.ready = Chain::new();
        self.contexts.iter_mut().for_each(|credit| {
            *credit = Credit::default();
        });
    }

    /// The peer has granted so much since the session began. A context beyond the storage is one
    /// that nothing is sent to.
    ///
    /// # Errors
    ///
    /// [`Violation::Grant`]: less than before.
    pub fn grant(&mut self, context: u16, granted: Amount) -> Result<(), Violation> {
        let Some(credit) = self.contexts.get_mut(usize::from(context)) else {
            return Ok(());
        };
        let news = granted.messages.wrapping_sub(credit.granted.messages);
        if news >= 1 << 31 || granted.bytes < credit.granted.bytes {
            return Err(Violation::Grant);
        }
        credit.granted = granted;
        self.retry(context);
        Ok(())
    }

    /// Has the first that waits for a context tried again, if any does.
    fn retry(&mut self, context: u16) {
        let Some(credit) = self.contexts.get_mut(usize::from(context)) else {
            return;
        };
        if !credit.waiting.is_empty() && !core::mem::replace(&mut credit.ready, true) {
            self.ready.push(&mut self.contexts, context.into());
        }
    }

    /// Whether something that waited may have credit.
    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// One that waited for credit, the first of its context, and which that is. It goes, by
    /// [`Credits::resume`], or the context waits for the next grant.
    pub fn pop_ready(&mut self) -> Option<(u16, u32)> {
        while let Some(at) = self.ready.pop(&mut self.contexts) {
            let credit = self.contexts.get_mut(at as usize)?;
            credit.ready = false;
            if let Some(first) = credit.waiting.head() {
                return Some((at as u16, first));
            }
        }
        None
    }

    /// Whether nothing before it in this search waits for the context and another reason.
    pub fn is_open_to(&self, context: u16) -> bool {
        let credit = self.contexts.get(usize::from(context));
        credit.is_some_and(|credit| credit.waits != self.search)
    }

    /// Has an operation wait until there is credit, behind those that do already.
    pub fn park<T: Linked>(&mut self, context: u16, slots: &mut [T], at: u32) {
        if let Some(credit) = self.contexts.get_mut(usize::from(context)) {
            credit.waiting.push(slots, at);
        }
    }

    /// Takes so much for the first that waits, if there is so much.
    pub fn resume(&mut self, context: u16, amount: Amount) -> bool {
        self.draw(context, amount)
    }

    /// One waits no more. The one behind it may go.
    pub fn unpark<T: Linked>(&mut self, context: u16, slots: &mut [T], at: u32) {
        if let Some(credit) = self.contexts.get_mut(usize::from(context)) {
            credit.waiting.remove(slots, at);
            self.retry(context);
        }
    }

    fn draw(&mut self, context: u16, amount: Amount) -> bool {
        let Some(credit) = self.contexts.get_mut(usize::from(context)) else {
            return false;
        };
        // The peer may have granted up to 2^31 messages at once; that is all of them.
        let covered = credit.granted.minus(credit.used).covers(amount);
        if covered {
            credit.used = credit.used.plus(amount);
        }
        covered
    }

    /// Whether there is such a context here.
    pub fn knows(&self, context: u16) -> bool {
        usize::from(context) < self.contexts.len()
    }

    /// By context, what was used.
    #[cfg(test)]
    pub(super) fn used(&self) -> Vec<Amount> {
        self.contexts.iter().map(|credit| credit.used).collect()
    }

    /// Begins a search through what waits.
    pub fn search(&mut self) {
        self.search = self.search.wrapping_add(1).max(1);
    }

    /// Takes so much, if there is so much and nothing before it waits for the same context, in this
    /// search or for credit: messages to a context keep their order. If not, it is to be parked, or
    /// to be held.
    pub fn take(&mut self, context: u16, amount: Amount) -> bool {
        let search = self.search;
        match self.contexts.get(usize::from(context)) {
            Some(credit) if credit.waits != search && credit.waiting.is_empty() => {
                self.draw(context, amount)
            }
            _ => false,
        }
    }

    /// What was taken for a frame that is never sent is there again.
    pub fn take_back(&mut self, context: u16, amount: Amount) {
        if let Some(credit) = self.contexts.get_mut(usize::from(context)) {
            credit.used = credit.used.minus(amount);
            self.retry(context);
        }
    }

    /// Keeps those that follow in this search behind one that waits for another reason.
    pub fn hold(&mut self, context: u16) {
        let search = self.search;
        if let Some(credit) = self.contexts.get_mut(usize::from(context)) {
            credit.waits = search;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::rng;
    use super::*;

    fn one(bytes: u64) -> Amount {
        Amount::new(1, bytes)
    }

    fn grants(contexts: usize, messages: u32, bytes: u64, eager: u32) -> Grants<Vec<Grant>> {
        let window = Amount::new(messages, bytes);
        Grants::new(vec![Grant::default(); contexts], window, eager)
    }

    fn credits(contexts: usize) -> Credits<Vec<Credit>> {
        Credits::new(vec![Credit::default(); contexts])
    }

    #[test]
    fn peer_may_send_what_it_was_told_and_no_more() {
        let mut grants = grants(1, 2, 100, 60);
        assert_eq!(grants.check(0, one(0)), Err(Violation::Credit));
        assert_eq!(grants.tell(), Some((0, Amount::new(2, 100))));
        assert_eq!(grants.tell(), None);
        assert_eq!(grants.check(0, one(100)), Ok(()));
        assert_eq!(grants.check(0, one(101)), Err(Violation::Credit));
        assert_eq!(grants.check(1, one(0)), Err(Violation::Context));
        grants.take(0, one(60));
        assert_eq!(grants.check(0, one(40)), Ok(()));
        assert_eq!(grants.check(0, one(41)), Err(Violation::Credit));
        grants.take(0, one(0));
        assert_eq!(grants.check(0, one(0)), Err(Violation::Credit));
        // What is given back is credit only after it was told.
        grants.give_back(0, one(60));
        assert_eq!(grants.check(0, one(0)), Err(Violation::Credit));
        assert_eq!(grants.tell(), Some((0, Amount::new(3, 160))));
        assert_eq!(grants.check(0, one(100)), Ok(()));
    }

    #[test]
    fn sender_takes_what_was_granted_and_no_more() {
        let mut credits = credits(2);
        credits.search();
        assert!(!credits.take(0, one(0)));
        assert_eq!(credits.grant(0, Amount::new(2, 100)), Ok(()));
        credits.search();
        assert!(credits.take(0, one(100)));
        // Behind one that waits nothing goes, even if there is credit for it.
        assert!(!credits.take(0, one(1)));
        credits.hold(0);
        assert!(!credits.take(0, one(0)));
        credits.search();
        assert!(credits.take(0, one(0)));
        credits.search();
        assert!(!credits.take(0, one(0)));
        // Other contexts have their own, and one that does not exist has none.
        assert_eq!(credits.grant(1, Amount::new(1, 0)), Ok(()));
        assert!(credits.take(1, one(0)));
        assert!(!credits.take(2, one(0)) && !credits.knows(2));
    }

    #[test]
    fn grant_may_be_repeated_but_never_shrinks() {
        let mut credits = credits(1);
        for (messages, bytes, good) in [
            (5, 50, true),
            (5, 50, true),
            (4, 50, false),
            (5, 49, false),
            (5, 51, true),
            (6, 51, true),
        ] {
            let found = credits.grant(0, Amount::new(messages, bytes));
            assert_eq!(found.is_ok(), good, "{messages} {bytes}");
        }
        // A context that this side does not use may have any.
        assert_eq!(credits.grant(7, Amount::new(1, 1)), Ok(()));
    }

    #[test]
    fn messages_may_wrap_around() {
        let mut credits = credits(1);
        let mut granted = Amount::new(0, 0);
        for _ in 0..9 {
            granted = granted.plus(Amount::new(1 << 30, 0));
            assert_eq!(credits.grant(0, granted), Ok(()));
            // As if all of them had been sent.
            credits.contexts[0].used.messages = granted.messages.wrapping_sub(1);
            credits.search();
            assert!(credits.take(0, one(0)));
            assert!(!credits.take(0, one(0)));
        }
    }

    /// A sender with a message that fits the window never waits for ever, and what is held never
    /// exceeds the window.
    #[test]
    fn what_fits_the_window_is_sent_sooner_or_later() {
        let mut rng = rng();
        for _ in 0..300 {
            let eager = rng.below(100) as u32;
            let messages = 1 + rng.below(5) as u32;
            let bytes = u64::from(eager) + rng.below(50);
            let mut grants = grants(1, messages, bytes, eager);
            let mut credits = credits(1);
            let mut held = Vec::new();
            for _ in 0..200 {
                let len = rng.below(u64::from(eager) + 1);
                loop {
                    while let Some((context, granted)) = grants.tell() {
                        credits.grant(context, granted).unwrap();
                    }
                    credits.search();
                    if credits.take(0, one(len)) {
                        break;
                    }
                    // All that is held is taken, in some order, before a sender waits in vain.
                    assert!(!held.is_empty(), "stuck: {messages} {bytes} {eager} {len}");
                    let at = rng.below(held.len() as u64) as usize;
                    grants.give_back(0, one(held.swap_remove(at)));
                }
                grants.check(0, one(len)).unwrap();
                grants.take(0, one(len));
                held.push(len);
                assert!(held.len() <= messages as usize);
                assert!(held.iter().sum::<u64>() <= bytes);
            }
        }
    }

    #[test]
    fn everything_is_told_again_on_another_link() {
        let mut grants = grants(3, 4, 100, 10);
        let all: Vec<_> = std::iter::from_fn(|| grants.tell()).collect();
        assert_eq!(all.len(), 3);
        assert!(!grants.is_due());
        grants.repeat();
        assert!(grants.is_due());
        let again: Vec<_> = std::iter::from_fn(|| grants.tell()).collect();
        assert_eq!(again, all);
    }
}
