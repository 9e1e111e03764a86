// SPDX-License-Identifier: GPL-2.0

//! Faults: what a provider that injects them does to each operation, from settings and a seed.
//!
//! Settings come as text, from an administrator. The plan draws from one sequence of numbers for
//! each kind of fault, so that the n-th decision of a kind follows from the seed and its own
//! setting alone. Which operation goes next is chosen from all that may go, so that with time
//! everything overtakes that may; what [`Order`] forbids is never chosen.

use super::order::{Effect, Order};
use super::rng::Rng;

/// A share of all is given in millionths.
pub const MILLION: u32 = 1_000_000;

/// The longest delay, in microseconds.
pub const MAX_DELAY: u32 = 1_000_000;

/// The largest errno. Source: MAX_ERRNO of include/linux/err.h.
pub const MAX_ERRNO: u32 = 4095;

/// Among how many, the oldest, the next is chosen.
pub const WINDOW: usize = 32;

/// Text that says nothing that could be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Invalid;

/// What is injected, and how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// What all decisions follow from; 0: nobody has chosen one.
    pub seed: u64,
    /// How long an endpoint's operations wait, in microseconds.
    pub delay_us: u32,
    /// Before how many in a million.
    pub delay_ppm: u32,
    /// Whether operations overtake each other where they may.
    pub reorder: bool,
    /// How many in a million fail, unexecuted.
    pub fail_ppm: u32,
    /// The errno that they fail with.
    pub fail_errno: u32,
    /// How many posts in a million are refused with EAGAIN.
    pub again_ppm: u32,
}

/// What somebody wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// The settings, after it.
    pub settings: Settings,
    /// Whether the provider is to end.
    pub unplug: bool,
}

impl Settings {
    /// Nothing is injected.
    pub const OFF: Settings = Settings {
        seed: 0,
        delay_us: 0,
        delay_ppm: 0,
        reorder: false,
        fail_ppm: 0,
        fail_errno: 5, // EIO
        again_ppm: 0,
    };

    /// Whether anything is injected.
    pub fn are_on(&self) -> bool {
        self.reorder
            || (self.delay_us > 0 && self.delay_ppm > 0)
            || self.fail_ppm > 0
            || self.again_ppm > 0
    }

    /// The names of the settings and what they are, as numbers, in the order in which they are
    /// shown.
    pub fn rows(&self) -> [(&'static str, u64); 7] {
        [
            ("seed", self.seed),
            ("delay_us", self.delay_us.into()),
            ("delay_ppm", self.delay_ppm.into()),
            ("reorder", self.reorder.into()),
            ("fail_ppm", self.fail_ppm.into()),
            ("fail_errno", self.fail_errno.into()),
            ("again_ppm", self.again_ppm.into()),
        ]
    }

    /// What these settings become by `text`: lines of a name and a decimal number.
    ///
    /// Names are those of [`Settings::rows`], and two that can't be read back: `off 1` undoes all
    /// that was set before, `unplug 1` asks for the end of the provider. All or nothing.
    pub fn parse(mut self, text: &[u8]) -> Result<Request, Invalid> {
        let mut unplug = false;
        let text = core::str::from_utf8(text).map_err(|_| Invalid)?;
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            let Some(name) = words.next() else { continue };
            let value = number(words.next().ok_or(Invalid)?)?;
            if words.next().is_some() {
                return Err(Invalid);
            }
            match name {
                "seed" => self.seed = value,
                "delay_us" => self.delay_us = within(value, 0, MAX_DELAY)?,
                "delay_ppm" => self.delay_ppm = within(value, 0, MILLION)?,
                "reorder" => self.reorder = within(value, 0, 1)? == 1,
                "fail_ppm" => self.fail_ppm = within(value, 0, MILLION)?,
                "fail_errno" => self.fail_errno = within(value, 1, MAX_ERRNO)?,
                "again_ppm" => self.again_ppm = within(value, 0, MILLION)?,
                "off" => {
                    within(value, 1, 1)?;
                    self = Settings::OFF;
                }
                "unplug" => unplug = within(value, 1, 1)? == 1,
                _ => return Err(Invalid),
            }
        }
        Ok(Request {
            settings: self,
            unplug,
        })
    }
}

/// A decimal number, of digits alone.
fn number(word: &str) -> Result<u64, Invalid> {
    match word.bytes().all(|byte| byte.is_ascii_digit()) {
        true => word.parse().map_err(|_| Invalid),
        false => Err(Invalid),
    }
}

/// A number from `least` to `most`.
fn within(value: u64, least: u32, most: u32) -> Result<u32, Invalid> {
    match u32::try_from(value) {
        Ok(value) if value >= least && value <= most => Ok(value),
        _ => Err(Invalid),
    }
}

/// What is done to which operation.
#[derive(Clone, Debug)]
pub struct Plan {
    settings: Settings,
    again: Rng,
    delay: Rng,
    lots: Rng,
    fail: Rng,
    hold: Rng,
    domains: Rng,
}

/// What is done to the operation that goes next.
#[derive(Clone, Debug)]
pub struct Turn {
    /// How long it waits before, and all behind it, in microseconds.
    pub delay_us: u32,
    /// The errno that it fails with, if it does.
    pub fail: Option<u32>,
    /// Whether it may be another than the first.
    reorder: bool,
    lot: Rng,
}

impl Plan {
    /// Begins the sequences of the settings' seed.
    pub fn new(settings: Settings) -> Plan {
        let mut seeds = Rng::new(settings.seed);
        let mut next = || Rng::new(seeds.next_u64());
        Plan {
            settings,
            again: next(),
            delay: next(),
            lots: next(),
            fail: next(),
            hold: next(),
            domains: next(),
        }
    }

    /// What it follows.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Those of the next domain that is opened: the same, but for a seed of its own.
    pub fn of_domain(&mut self) -> Settings {
        let mut settings = self.settings;
        if settings.seed != 0 {
            settings.seed = self.domains.next_u64() | 1;
        }
        settings
    }

    /// Whether the next post is refused.
    pub fn refuses(&mut self) -> bool {
        happens(&mut self.again, self.settings.again_ppm)
    }

    /// Whether the completion of an operation that has taken effect comes after the next one's.
    ///
    /// No order is about completions: half of them.
    pub fn holds(&mut self) -> bool {
        self.settings.reorder && self.hold.one_in(2)
    }

    /// What is done to the operation that goes next.
    pub fn turn(&mut self) -> Turn {
        let delayed = happens(&mut self.delay, self.settings.delay_ppm);
        let fails = happens(&mut self.fail, self.settings.fail_ppm);
        Turn {
            delay_us: if delayed { self.settings.delay_us } else { 0 },
            fail: fails.then_some(self.settings.fail_errno),
            reorder: self.settings.reorder,
            lot: Rng::new(self.lots.next_u64()),
        }
    }
}

/// True `ppm` times in a million. Draws in any case.
fn happens(rng: &mut Rng, ppm: u32) -> bool {
    rng.below(MILLION.into()) < ppm.into()
}

impl Turn {
    /// Which of the pending operations of an endpoint goes next; `None` if there are none.
    ///
    /// They are given in the order of their posts, each by its peer and what it is. Any of the
    /// first [`WINDOW`] may be chosen that none before it holds back, each as likely.
    pub fn choose<P: Copy + PartialEq>(
        &self,
        order: Order,
        mut pending: impl Iterator<Item = (P, Effect)>,
    ) -> Option<usize> {
        if !self.reorder {
            return pending.next().map(|_| 0);
        }
        let mut lot = self.lot.clone();
        // Of each peer, what was seen.
        let mut seen: [Option<(P, u8)>; WINDOW] = [None; WINDOW];
        let (mut free, mut chosen) = (0, None);
        for (at, (peer, effect)) in pending.take(WINDOW).enumerate() {
            let known = |place: &Option<(P, u8)>| place.is_none_or(|(other, _)| other == peer);
            // There is a place for each that can be seen.
            let place = seen.iter_mut().find(|place| known(place))?;
            let (_, earlier) = place.get_or_insert((peer, 0));
            let held = [Effect::Read, Effect::Write, Effect::Send]
                .iter()
                .any(|other| *earlier & bit(*other) != 0 && order.holds(effect, *other));
            *earlier |= bit(effect);
            if !held {
                free += 1;
                if lot.one_in(free) {
                    chosen = Some(at);
                }
            }
        }
        chosen
    }
}

/// An effect, in a set of them.
const fn bit(effect: Effect) -> u8 {
    1 << effect as u8
}

#[cfg(test)]
mod tests {
    use super::super::testing::rng;
    use super::*;

    const EFFECTS: [Effect; 3] = [Effect::Read, Effect::Write, Effect::Send];

    fn on() -> Settings {
        Settings {
            seed: 7,
            delay_us: 100,
            delay_ppm: 1000,
            reorder: true,
            fail_ppm: 20,
            fail_errno: 110,
            again_ppm: 3000,
        }
    }

    #[test]
    fn each_domain_has_a_seed_that_follows_from_its_providers() {
        let seeds = |settings| {
            let mut plan = Plan::new(settings);
            [0; 3].map(|_| plan.of_domain().seed)
        };
        let drawn = seeds(on());
        assert_eq!(seeds(on()), drawn);
        assert!(drawn[0] != drawn[1] && drawn[1] != drawn[2] && !drawn.contains(&on().seed));
        assert!(!drawn.contains(&0));
        // All else is as it is.
        let seed = on().seed;
        let of_domain = Plan::new(on()).of_domain();
        assert_eq!(Settings { seed, ..of_domain }, on());
        assert_eq!(seeds(Settings::OFF), [0; 3]);
    }

    #[test]
    fn half_of_the_completions_are_held_where_what_may_be_is_reordered() {
        let mut plan = Plan::new(on());
        let held = (0..10_000).filter(|_| plan.holds()).count();
        assert!((4_500..5_500).contains(&held), "{held}");
        let mut plan = Plan::new(Settings {
            reorder: false,
            ..on()
        });
        assert!((0..1000).all(|_| !plan.holds()));
    }

    #[test]
    fn what_is_shown_can_be_written() {
        for settings in [Settings::OFF, on()] {
            let text: String = settings
                .rows()
                .iter()
                .map(|(name, number)| format!("{name} {number}\n"))
                .collect();
            let expected = Ok(Request {
                settings,
                unplug: false,
            });
            assert_eq!(Settings::OFF.parse(text.as_bytes()), expected);
            assert_eq!(on().parse(text.as_bytes()), expected);
        }
    }

    #[test]
    fn numbers_have_their_bounds() {
        for (name, least, most) in [
            ("seed", 0_u64, u64::MAX),
            ("delay_us", 0, 1_000_000),
            ("delay_ppm", 0, 1_000_000),
            ("reorder", 0, 1),
            ("fail_ppm", 0, 1_000_000),
            ("fail_errno", 1, 4095),
            ("again_ppm", 0, 1_000_000),
            ("off", 1, 1),
            ("unplug", 1, 1),
        ] {
            let set = |value: u128| on().parse(format!("{name} {value}").as_bytes());
            assert!(set(least.into()).is_ok(), "{name}");
            assert!(set(most.into()).is_ok(), "{name}");
            assert_eq!(set(u128::from(most) + 1), Err(Invalid), "{name}");
            if let Some(below) = u128::from(least).checked_sub(1) {
                assert_eq!(set(below), Err(Invalid), "{name}");
            }
        }
    }

    #[test]
    fn lines_are_a_name_and_a_number() {
        for text in [
            "seed",
            "seed 1 2",
            "seed x",
            "seed -1",
            "seed +1",
            "seed 0x1",
            "seed 1.0",
            "Seed 1",
            "seeds 1",
            "seed=1",
            "1 seed",
            "seed 18446744073709551616",
            "seed 1\nnonsense 1",
            "seed 1\0",
            "unplug 0",
            "off",
        ] {
            assert_eq!(Settings::OFF.parse(text.as_bytes()), Err(Invalid), "{text}");
        }
        assert_eq!(Settings::OFF.parse(b"seed 1\xff"), Err(Invalid));
        for text in ["", "\n", " seed\t7 \n\n", "seed 8\nseed 7", "seed 7\r\n"] {
            let parsed = Settings::OFF.parse(text.as_bytes()).unwrap();
            assert!(
                text.trim().is_empty() || parsed.settings.seed == 7,
                "{text}"
            );
        }
    }

    #[test]
    fn off_undoes_what_stands_before_it() {
        let parsed = on().parse(b"reorder 1\noff 1\nfail_ppm 9").unwrap();
        let expected = Settings {
            fail_ppm: 9,
            ..Settings::OFF
        };
        assert_eq!(parsed.settings, expected);
        assert!(!parsed.unplug);
        let parsed = on().parse(b"unplug 1").unwrap();
        assert_eq!((parsed.settings, parsed.unplug), (on(), true));
    }

    #[test]
    fn only_what_injects_is_on() {
        assert!(!Settings::OFF.are_on());
        for (text, expected) in [
            ("seed 1\nfail_errno 1", false),
            ("delay_us 1", false),
            ("delay_ppm 1", false),
            ("delay_us 1\ndelay_ppm 1", true),
            ("reorder 1", true),
            ("fail_ppm 1", true),
            ("again_ppm 1", true),
        ] {
            let parsed = Settings::OFF.parse(text.as_bytes()).unwrap();
            assert_eq!(parsed.settings.are_on(), expected, "{text}");
        }
    }

    #[test]
    fn shares_are_in_millionths() {
        const N: u32 = 100_000;
        let seed = rng().next_u64();
        for ppm in [0, 1000, 500_000, MILLION] {
            let mut plan = Plan::new(Settings {
                seed,
                delay_us: 5,
                delay_ppm: ppm,
                fail_ppm: ppm,
                again_ppm: ppm,
                ..on()
            });
            let mut counts = [0u32; 3];
            for _ in 0..N {
                let (refused, turn) = (plan.refuses(), plan.turn());
                assert!(turn.delay_us == 0 || turn.delay_us == 5);
                assert!(turn.fail.is_none_or(|errno| errno == 110));
                counts[0] += u32::from(refused);
                counts[1] += u32::from(turn.delay_us > 0);
                counts[2] += u32::from(turn.fail.is_some());
            }
            let mean = ppm / (MILLION / N);
            // More than 6 sigma; nothing at the ends.
            let slack = if ppm % MILLION == 0 {
                0
            } else {
                1000.min(mean)
            };
            for count in counts {
                assert!(count.abs_diff(mean) <= slack, "{count} of {N}, not {mean}");
            }
        }
    }

    #[test]
    fn decisions_follow_from_the_seed_and_their_own_setting() {
        let seed = rng().next_u64();
        let decide = |settings: Settings| {
            let mut plan = Plan::new(settings);
            let again: Vec<_> = (0..200).map(|_| plan.refuses()).collect();
            let turns: Vec<_> = (0..200).map(|_| plan.turn()).collect();
            let fails: Vec<_> = turns.iter().map(|turn| turn.fail.is_some()).collect();
            (again, fails)
        };
        let settings = Settings {
            seed,
            fail_ppm: 300_000,
            again_ppm: 300_000,
            ..Settings::OFF
        };
        let (again, fails) = decide(settings);
        assert_eq!(decide(settings), (again.clone(), fails.clone()));
        assert_ne!(again, fails);
        let other = Settings {
            again_ppm: 0,
            delay_us: 1,
            delay_ppm: 400_000,
            reorder: true,
            ..settings
        };
        assert_eq!(decide(other), (vec![false; 200], fails.clone()));
        let other = Settings {
            seed: seed.wrapping_add(1),
            ..settings
        };
        assert_ne!(decide(other), (again, fails));
    }

    /// Which may go, by the rule itself: each that need not wait for any before it.
    fn free(order: Order, pending: &[(u8, Effect)]) -> Vec<usize> {
        (0..pending.len().min(WINDOW))
            .filter(|at| {
                let (peer, effect) = pending[*at];
                pending[..*at]
                    .iter()
                    .all(|(other, earlier)| *other != peer || !order.holds(effect, *earlier))
            })
            .collect()
    }

    fn random_order(rng: &mut Rng) -> Order {
        let each = [
            Order::RAR,
            Order::RAW,
            Order::RAS,
            Order::WAR,
            Order::WAW,
            Order::WAS,
            Order::SAR,
            Order::SAW,
            Order::SAS,
        ];
        match rng.below(4) {
            0 => Order::NONE,
            1 => Order::STRICT,
            _ => each
                .into_iter()
                .filter(|_| rng.one_in(3))
                .fold(Order::NONE, |all, one| all | one),
        }
    }

    fn random_pending(rng: &mut Rng, most: u64) -> Vec<(u8, Effect)> {
        (0..rng.below(most + 1))
            .map(|_| (rng.below(3) as u8, EFFECTS[rng.below(3) as usize]))
            .collect()
    }

    #[test]
    fn all_that_may_go_are_chosen_and_no_other() {
        let mut rng = rng();
        for _ in 0..300 {
            let (order, pending) = (random_order(&mut rng), random_pending(&mut rng, 40));
            let mut plan = Plan::new(Settings {
                seed: rng.next_u64(),
                ..on()
            });
            let mut chosen = vec![0u32; pending.len()];
            for _ in 0..2000 {
                match plan.turn().choose(order, pending.iter().copied()) {
                    Some(at) => chosen[at] += 1,
                    None => assert!(pending.is_empty()),
                }
            }
            let found: Vec<_> = (0..pending.len()).filter(|at| chosen[*at] > 0).collect();
            assert_eq!(found, free(order, &pending), "{order:?} {pending:?}");
        }
    }

    #[test]
    fn what_goes_one_after_another_breaks_no_order() {
        let mut rng = rng();
        for _ in 0..500 {
            let (order, all) = (random_order(&mut rng), random_pending(&mut rng, 60));
            let mut plan = Plan::new(Settings {
                seed: rng.next_u64(),
                ..on()
            });
            let mut pending: Vec<usize> = (0..all.len()).collect();
            let mut gone = Vec::new();
            while let Some(at) = plan.turn().choose(order, pending.iter().map(|n| all[*n])) {
                gone.push(pending.remove(at));
            }
            assert!(pending.is_empty());
            for (at, later) in gone.iter().enumerate() {
                for earlier in &gone[at + 1..] {
                    let ((peer, effect), (other, before)) = (all[*later], all[*earlier]);
                    // `later` went first.
                    let overtook = later > earlier && peer == other;
                    assert!(!overtook || !order.holds(effect, before), "{order:?}");
                }
            }
        }
    }

    #[test]
    fn everything_overtakes_everything_where_nothing_is_ordered() {
        let mut plan = Plan::new(Settings {
            seed: rng().next_u64(),
            ..on()
        });
        let mut seen = std::collections::HashSet::new();
        for _ in 0..3000 {
            let mut pending = vec![0, 1, 2, 3, 4];
            let mut gone = Vec::new();
            while let Some(at) = plan
                .turn()
                .choose(Order::NONE, pending.iter().map(|_| (0u8, Effect::Write)))
            {
                gone.push(pending.remove(at));
            }
            seen.insert(gone);
        }
        assert_eq!(seen.len(), 120);
    }

    #[test]
    fn nothing_overtakes_unless_it_is_switched_on() {
        let mut plan = Plan::new(Settings {
            reorder: false,
            ..on()
        });
        for _ in 0..100 {
            let pending = EFFECTS.map(|effect| (0u8, effect));
            let chosen = plan.turn().choose(Order::NONE, pending.into_iter());
            assert_eq!(chosen, Some(0));
        }
    }
}
