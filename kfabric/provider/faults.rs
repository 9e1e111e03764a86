// SPDX-License-Identifier: GPL-2.0

//! Faults that a provider injects, as the administrator asks for them in debugfs.
//!
//! A provider that can has one [`Faults`] for the domains that it will open, and one for each
//! domain: [`Provider::faults`](super::Provider::faults), [`Domain::faults`](super::Domain::faults).
//! The core shows them as files `faults`, which may be written. The provider asks
//! [`Faults::are_on`] at each post, and, if they are, what is to be done. The rules are those of
//! `proto/faults.rs`; see Documentation/faults.rst.
//!
//! Locks: `plan` is a leaf lock, interrupts disabled.

use crate::debugfs;
use crate::info::{Effect, Label, Order};
use crate::op::{Chain, Operation};
use crate::proto::faults::{Plan, Settings, Turn};
use crate::stats::Count;
use crate::sys::{once, random};
use kernel::fmt;
use kernel::prelude::*;
use kernel::sync::atomic::{Atomic, Relaxed};
use kernel::sync::{new_spinlock_irq, Arc, SpinLockIrq};

/// What is injected, and how often it was.
#[pin_data]
pub struct Faults {
    on: Atomic<bool>,
    #[pin]
    plan: SpinLockIrq<Plan>,
    /// What counts it as well: that of the provider, for a domain.
    of: Option<Arc<Faults>>,
    refused: Count,
    delayed: Count,
    overtaken: Count,
    failed: Count,
    held: Count,
}

/// What is done to the operation that goes next.
pub struct Next(Turn);

impl Next {
    /// How long it waits before it goes, and all behind it, in microseconds.
    pub fn delay_us(&self) -> u32 {
        self.0.delay_us
    }
}

impl Faults {
    /// None, until the administrator says otherwise. May sleep. `ENOMEM`.
    pub fn new() -> Result<Arc<Self>> {
        Self::make(Settings::OFF, None)
    }

    /// Those that `of` has now, for a domain of its provider, with a seed of its own; `of` counts what
    /// is injected, too.
    ///
    /// May sleep. `ENOMEM`.
    pub fn like(of: &Arc<Faults>) -> Result<Arc<Self>> {
        let settings = of.plan.lock().of_domain();
        Self::make(settings, Some(of.clone()))
    }

    #[inline(never)]
    fn make(settings: Settings, of: Option<Arc<Faults>>) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Faults {
                on: Atomic::new(settings.are_on()),
                plan <- new_spinlock_irq!(Plan::new(settings), "kfi_faults"),
                of,
                refused: Count::default(),
                delayed: Count::default(),
                overtaken: Count::default(),
                failed: Count::default(),
                held: Count::default(),
            }),
            GFP_KERNEL,
        )
    }

    /// Whether anything is injected. Any context.
    #[inline]
    pub fn are_on(&self) -> bool {
        once::read(&self.on)
    }

    /// Whether a post is to be refused, with `EAGAIN`. Any context but hardirq.
    pub fn refuse(&self) -> bool {
        let refused = self.plan.lock().refuses();
        if refused {
            self.count(|counts| &counts.refused);
        }
        refused
    }

    /// Decides what is done to the operation that goes next: nothing, if faults are off. Any context but
    /// hardirq.
    ///
    /// There must be one that waits: what is decided for none would be missing in the sequence.
    pub fn next(&self) -> Next {
        let turn = match self.are_on() {
            true => self.plan.lock().turn(),
            false => Plan::new(Settings::OFF).turn(),
        };
        if turn.delay_us > 0 {
            self.count(|counts| &counts.delayed);
        }
        Next(turn)
    }

    /// Takes the operation out that goes next, and the error that it is to fail with, if it is.
    ///
    /// `pending` are those of one endpoint, in the order of their posts; `order` is what its info
    /// asks for. Takes no lock. Steps: a few for each of the oldest 32.
    pub fn take(
        &self,
        next: &Next,
        order: Order,
        pending: &mut Chain,
    ) -> Option<(Operation, Option<Error>)> {
        let seen = pending.iter().map(|op| {
            // Receives never get here.
            (op.peer(), op.effect().unwrap_or(Effect::Send))
        });
        let chosen = next.0.choose(order, seen)?;
        let mut at = 0;
        let op = pending.find(|_| {
            at += 1;
            at > chosen
        })?;
        if chosen > 0 {
            self.count(|counts| &counts.overtaken);
        }
        let error = next.0.fail.map(|errno| Error::from_errno(-(errno as i32)));
        if error.is_some() {
            self.count(|counts| &counts.failed);
        }
        Some((op, error))
    }

    /// Whether the completion of what has taken effect, or the copy of a matched message, is to wait
    /// while that of the next is made: asked before each. It waits no longer than there is something
    /// left to do.
    ///
    /// Any context but hardirq.
    pub fn hold(&self) -> bool {
        let held = self.are_on() && self.plan.lock().holds();
        if held {
            self.count(|counts| &counts.held);
        }
        held
    }

    fn count(&self, which: impl Fn(&Faults) -> &Count) {
        which(self).add(1);
        if let Some(of) = &self.of {
            which(of).add(1);
        }
    }

    /// Sets what is written; whether the provider is to end. `EINVAL`: nothing has changed.
    pub(crate) fn set(&self, name: &Label, text: &[u8]) -> Result<bool> {
        let mut plan = self.plan.lock();
        let request = plan.settings().parse(text).map_err(|_| EINVAL)?;
        let mut settings = request.settings;
        if settings != *plan.settings() || !request.unplug {
            if settings.are_on() && settings.seed == 0 {
                // One that can be written, to repeat it.
                settings.seed = random::u64() | 1;
            }
            *plan = Plan::new(settings);
            self.on.store(settings.are_on(), Relaxed);
            drop(plan);
            match settings.are_on() {
                true => pr_info!("{name}: faults: seed {}\n", settings.seed),
                false => pr_info!("{name}: faults: off\n"),
            }
        }
        Ok(request.unplug)
    }

    /// Writes the settings, and how often each fault was injected.
    pub(crate) fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let settings = *self.plan.lock().settings();
        debugfs::rows(f, &settings.rows())?;
        let rows = [
            ("refused", self.refused.value()),
            ("delayed", self.delayed.value()),
            ("overtaken", self.overtaken.value()),
            ("failed", self.failed.value()),
            ("held", self.held.value()),
        ];
        debugfs::rows(f, &rows)
    }
}

#[kunit_tests(kfabric_faults)]
mod tests {
    use super::*;
    use crate::op::testing::Bench;
    use crate::op::{Buffer, Kind};
    use kernel::str::CString;

    struct Text<'a>(&'a Faults);

    impl fmt::Display for Text<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            self.0.show(f)
        }
    }

    fn text(faults: &Faults) -> Result<CString> {
        CString::try_from_fmt(fmt!("{}", Text(faults)))
    }

    #[test]
    fn what_is_wrong_changes_nothing() -> Result {
        let (faults, name) = (Faults::new()?, Label::new("kunit")?);
        assert_eq!(faults.set(&name, b"seed 9\nreorder 1\n"), Ok(false));
        let before = text(&faults)?;
        for wrong in [&b"reorder 2"[..], b"off 1\nfail_errno 0", b"\xff"] {
            assert_eq!(faults.set(&name, wrong), Err(EINVAL));
            assert!(*text(&faults)? == *before && faults.are_on());
        }
        assert_eq!(faults.set(&name, b"off 1"), Ok(false));
        assert!(!faults.are_on());
        assert_eq!(faults.set(&name, b"unplug 1"), Ok(true));
        Ok(())
    }

    #[test]
    fn seed_is_chosen_once_where_nobody_has() -> Result {
        let (faults, name) = (Faults::new()?, Label::new("kunit")?);
        faults.set(&name, b"fail_errno 7")?;
        assert_eq!(faults.plan.lock().settings().seed, 0);
        faults.set(&name, b"fail_ppm 7")?;
        let seed = faults.plan.lock().settings().seed;
        assert!(seed != 0);
        faults.set(&name, b"again_ppm 7")?;
        assert_eq!(faults.plan.lock().settings().seed, seed);
        Ok(())
    }

    #[test]
    fn what_is_injected_is_counted_at_the_domain_and_at_its_provider() -> Result {
        let (provider, name) = (Faults::new()?, Label::new("kunit")?);
        let settings = b"seed 3\ndelay_us 4\ndelay_ppm 1000000\nreorder 1\n\
            fail_ppm 1000000\nfail_errno 110\nagain_ppm 1000000\n";
        provider.set(&name, settings)?;
        let faults = Faults::like(&provider)?;
        // What is set there afterwards is for other domains.
        provider.set(&name, b"off 1\nseed 8")?;
        assert!(faults.are_on() && !provider.are_on());
        assert!(faults.refuse());

        let bench = Bench::<u64>::new(8, None)?;
        let mut chain = Chain::new();
        for context in 0..8 {
            chain.push(bench.post(Kind::Send, Buffer::empty(), context)?.1);
        }
        let mut overtaken = 0;
        loop {
            let first = chain.iter().next().map(|op| op.id());
            let Some(first) = first else { break };
            let next = faults.next();
            assert_eq!(next.delay_us(), 4);
            let (op, error) = faults.take(&next, Order::NONE, &mut chain).ok_or(ENOENT)?;
            assert_eq!(error, Some(ETIMEDOUT));
            overtaken += u64::from(op.id() != first);
            drop(op);
            drop(bench.read());
        }
        assert!(overtaken > 0);
        let held = (0..50).filter(|_| faults.hold()).count();
        assert!((1..50).contains(&held));
        let own = faults.plan.lock().settings().seed;
        assert!(own != 3);
        for (faults, seed, on) in [(&faults, own, true), (&provider, 8, false)] {
            let (ppm, flag) = (if on { 1_000_000 } else { 0 }, u64::from(on));
            let errno = if on { 110 } else { 5 };
            let expected = CString::try_from_fmt(fmt!(
                "seed {seed}\ndelay_us {}\ndelay_ppm {ppm}\nreorder {flag}\nfail_ppm {ppm}\n\
                 fail_errno {errno}\nagain_ppm {ppm}\nrefused 1\ndelayed 8\novertaken {overtaken}\n\
                 failed 8\nheld {held}\n",
                4 * flag
            ))?;
            assert!(*text(faults)? == *expected);
        }
        Ok(())
    }

    #[test]
    fn nothing_is_done_while_faults_are_off() -> Result {
        let faults = Faults::new()?;
        let bench = Bench::<u64>::new(2, None)?;
        let mut chain = Chain::new();
        for context in 0..2 {
            chain.push(bench.post(Kind::Send, Buffer::empty(), context)?.1);
        }
        for context in 0..2 {
            let next = faults.next();
            assert_eq!(next.delay_us(), 0);
            assert!(!faults.hold());
            let (op, error) = faults.take(&next, Order::NONE, &mut chain).ok_or(ENOENT)?;
            assert!(error.is_none());
            drop(op);
            assert_eq!(bench.read().map(|done| done.context), Some(context));
        }
        assert!(faults
            .take(&faults.next(), Order::NONE, &mut chain)
            .is_none());
        Ok(())
    }
}
