// SPDX-License-Identifier: GPL-2.0

//! Numbers that a seed determines: splitmix64.
//!
//! For simulation, fault injection and the power-cut model, where a failure must repeat from its
//! seed. Not for keys: whoever sees one number can compute all the others.
//!
//! Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014.

/// A generator; equal seeds give equal sequences, on every machine.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// Starts the sequence of `seed`; every value is a good one.
    pub const fn new(seed: u64) -> Rng {
        Rng(seed)
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from 0 to `n - 1`, each equally likely; 0 if `n` is 0.
    pub fn below(&mut self, n: u64) -> u64 {
        if n == 0 {
            return 0;
        }
        // The last, incomplete run of n numbers is drawn again: it would favour the small ones.
        let incomplete = (u64::MAX % n + 1) % n;
        loop {
            let drawn = self.next_u64();
            if drawn <= u64::MAX - incomplete {
                return drawn % n;
            }
        }
    }

    /// True once in `n` times on average; never if `n` is 0.
    pub fn one_in(&mut self, n: u64) -> bool {
        n != 0 && self.below(n) == 0
    }

    /// Fills `out`.
    pub fn fill(&mut self, out: &mut [u8]) {
        for chunk in out.chunks_mut(8) {
            let bytes = self.next_u64().to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequence_is_the_published_one() {
        // The first values for seed 1234567 in the reference implementation.
        let mut rng = Rng::new(1234567);
        assert_eq!(rng.next_u64(), 6457827717110365317);
        assert_eq!(rng.next_u64(), 3203168211198807973);
        assert_eq!(rng.next_u64(), 9817491932198370423);
    }

    #[test]
    fn below_stays_below_and_reaches_every_number() {
        let mut rng = Rng::new(1);
        for n in [1, 2, 3, 7, 64] {
            let mut seen = [false; 64];
            for _ in 0..n * 64 {
                let drawn = rng.below(n);
                assert!(drawn < n);
                seen[drawn as usize] = true;
            }
            assert!(seen[..n as usize].iter().all(|&seen| seen), "n = {n}");
        }
    }

    #[test]
    fn below_favours_nothing_when_n_is_huge() {
        // A plain remainder would put two thirds of the draws into the lower half of this n.
        let n = 3 << 62;
        let mut rng = Rng::new(2);
        let low = (0..4000).filter(|_| rng.below(n) < 1 << 62).count();
        assert!(
            (1200..1467).contains(&low),
            "{low} of 4000, expected a third"
        );
    }

    #[test]
    fn below_zero_and_one_in_zero_are_defined() {
        let mut rng = Rng::new(3);
        assert_eq!(rng.below(0), 0);
        assert_eq!(rng.below(u64::MAX).wrapping_add(1), {
            let mut again = Rng::new(3);
            again.next_u64().wrapping_add(1)
        });
        assert!(!rng.one_in(0));
        assert!(rng.one_in(1));
    }

    #[test]
    fn one_in_four_is_a_quarter() {
        let mut rng = Rng::new(4);
        let hits = (0..4000).filter(|_| rng.one_in(4)).count();
        assert!((850..1150).contains(&hits), "{hits} of 4000");
    }

    #[test]
    fn fill_reaches_every_byte_of_any_length() {
        for len in 0..20 {
            let mut or = [0u8; 20];
            let mut rng = Rng::new(5);
            for _ in 0..64 {
                let mut out = [0u8; 20];
                rng.fill(&mut out[..len]);
                or.iter_mut().zip(out).for_each(|(or, out)| *or |= out);
            }
            assert!(or[..len].iter().all(|&b| b == 0xff), "len {len}");
            assert!(or[len..].iter().all(|&b| b == 0), "len {len}");
        }
    }
}
