// SPDX-License-Identifier: GPL-2.0

//! A range of a device's own memory: the kind that is not on the memory bus.

use super::range::Range;
use crate::sys::{
    bar::{DeviceMemory, CHUNK},
    copy::Window,
};
use kernel::prelude::*;

impl Range<DeviceMemory> {
    /// Calls `f` with a window on `len` bytes from `offset` of the range.
    ///
    /// # Errors
    /// - `EINVAL`: out of bounds.
    /// - `ENODEV`: the device is gone.
    pub(super) fn with<T>(
        &self,
        offset: usize,
        len: usize,
        f: impl FnOnce(Window<'_>) -> Result<T>,
    ) -> Result<T> {
        let offset = self.locate(offset, len)?;
        let access = self.device.access()?;

        f(access.window().sub(offset, len)?)
    }

    /// Calls `f` with windows on `len` bytes from `offset`, in ascending order: each with how many
    /// bytes were before it, and short enough for the device's removal to wait for it.
    ///
    /// # Errors
    /// As [`Range::with`]; gone between two windows, `f` was called for the first ones.
    pub(super) fn each(
        &self,
        offset: usize,
        len: usize,
        mut f: impl FnMut(usize, Window<'_>) -> Result,
    ) -> Result {
        let offset = self.locate(offset, len)?;
        let mut done = 0;
        loop {
            let part = CHUNK.min(len - done);
            let access = self.device.access()?;
            f(done, access.window().sub(offset + done, part)?)?;
            done += part;
            if done == len {
                return Ok(());
            }
        }
    }
}

#[kunit_tests(kfabric_memory_device)]
mod tests {
    use super::super::testing::*;
    use super::super::{Exposed, Memory};
    use super::*;
    use crate::sys::bar::testing::lender;

    #[test]
    fn range_lies_within_its_device() -> Result {
        let lender = lender(4096)?;
        for (offset, len, good) in [
            (0, 1, true),
            (0, 4096, true),
            (0, 4097, false),
            (1, 4096, false),
            (4095, 1, true),
            (4096, 1, false),
            (0, 0, false),
            (u64::MAX, 2, false),
        ] {
            let memory = Memory::device(lender.memory(), offset, len);
            assert_eq!(memory.map(|memory| memory.len()).ok(), good.then_some(len));
        }
        Ok(())
    }

    #[test]
    fn device_memory_refuses_what_is_out_of_bounds() -> Result {
        let lender = lender(4096)?;
        let mut owned = Memory::device(lender.memory(), 1000, 64)?;
        assert!(owned.is_device() && !owned.is_persistent() && owned.as_slice().is_none());
        let other = Memory::zeroed(128)?.expose();
        let mut buffer = [0; 65];
        for (offset, len, inside) in BOUNDS {
            let part = &mut buffer[..len];
            assert_eq!(owned.read_at(offset, part).is_ok(), inside);
            assert_eq!(owned.write_at(offset, part).is_ok(), inside);
        }
        let memory = owned.expose();
        for (offset, len, inside) in BOUNDS {
            let copied = [
                Exposed::copy(&memory, offset, &other, 0, len),
                Exposed::copy(&other, 0, &memory, offset, len),
                Exposed::copy(&memory, offset, &memory, 0, len),
            ];
            assert!(copied.iter().all(|copied| copied.is_ok() == inside));
        }
        Ok(())
    }

    #[test]
    fn nothing_is_done_at_once_or_made_durable_on_a_device() -> Result {
        let lender = lender(4096)?;
        let memory = Memory::device(lender.memory(), 0, 64)?.expose();
        assert!(refused(memory.load_u64(0), EOPNOTSUPP));
        assert!(refused(memory.store_u64(0, 1), EOPNOTSUPP));
        assert!(refused(memory.load_u64(64), EINVAL));
        assert!(refused(memory.commit(0, 64), EOPNOTSUPP));
        Ok(())
    }

    #[test]
    fn bytes_meet_those_of_pieces_and_of_the_device_itself() -> Result {
        const LEN: usize = 3 * CHUNK;
        let lender = lender(LEN)?;
        let whole = Memory::device(lender.memory(), 0, LEN)?.expose();
        let lens = [1, 7, 1000, CHUNK + 3, 0, CHUNK];
        for (to, from, len) in [
            (0, 0, LEN - 600),
            (5, 3, CHUNK + 1),
            (CHUNK, 1, 300),
            (9, 9, 0),
        ] {
            let bytes = in_pieces(&lens)?.expose();
            let back = Memory::zeroed(LEN)?.expose();
            let len = len.min(bytes.len() - from);
            Exposed::copy(&whole, to, &bytes, from, len)?;
            Exposed::copy(&back, 1, &whole, to, len)?;
            let mut byte = [0];
            for i in 0..len {
                back.read_at(1 + i, &mut byte)?;
                assert!(byte[0] == (from + i) as u8);
            }
        }
        // Onto itself, either way, through one range and through two of the same device.
        let (low, high) = (
            Memory::device(lender.memory(), 0, LEN - 64)?.expose(),
            Memory::device(lender.memory(), 64, LEN - 64)?.expose(),
        );
        let count = |memory: &Exposed| -> Result {
            let bytes = in_pieces(&[LEN - 64])?.expose();
            Exposed::copy(memory, 0, &bytes, 0, LEN - 64)
        };
        for (dst, to, src, from) in [
            (&low, 0, &low, 100),
            (&low, 40_000, &low, 0),
            (&high, 0, &low, 0),
            (&low, 0, &high, 0),
        ] {
            count(src)?;
            let len = 2 * CHUNK;
            Exposed::copy(dst, to, src, from, len)?;
            let mut byte = [0];
            for i in 0..len {
                dst.read_at(to + i, &mut byte)?;
                assert!(byte[0] == (from + i) as u8);
            }
        }
        Ok(())
    }

    #[test]
    fn memory_that_was_taken_back_is_enodev() -> Result {
        let lender = lender(4096)?;
        let mut owned = Memory::device(lender.memory(), 0, 64)?;
        let memory = Memory::device(lender.memory(), 0, 64)?.expose();
        let (device, other) = (lender.memory().clone(), Memory::zeroed(64)?.expose());
        assert!(!device.is_gone());
        drop(lender);
        assert!(device.is_gone());
        let mut bytes = [0; 64];
        for len in [0, 1, 64] {
            assert!(refused(owned.read_at(0, &mut bytes[..len]), ENODEV));
            assert!(refused(owned.write_at(0, &bytes[..len]), ENODEV));
            assert!(refused(Exposed::copy(&memory, 0, &other, 0, len), ENODEV));
            assert!(refused(Exposed::copy(&other, 0, &memory, 0, len), ENODEV));
        }
        assert!(refused(Memory::device(&device, 0, 64), ENODEV));
        Ok(())
    }
}
