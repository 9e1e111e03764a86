// SPDX-License-Identifier: GPL-2.0

//! A range of a persistent device: the kind of memory that survives.

use super::range::Range;
use crate::sys::{copy::Window, pmem::Pmem};
use kernel::prelude::*;

impl Range<Pmem> {
    /// Calls `f` with a window on `len` bytes from `offset` of the range.
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
}

#[kunit_tests(kfabric_memory_persistent)]
mod tests {
    use super::super::testing::*;
    use super::super::{Exposed, Memory};
    use super::*;
    use crate::sys::pmem::testing::Device;

    #[test]
    fn range_lies_within_its_device() -> Result {
        let device = Device::new(4096)?;
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
            let memory = Memory::persistent(&device, offset, len);
            assert_eq!(memory.map(|memory| memory.len()).ok(), good.then_some(len));
        }
        Ok(())
    }

    #[test]
    fn bytes_are_those_of_the_range_and_no_others() -> Result {
        let device = Device::new(4096)?;
        let mut part = Memory::persistent(&device, 100, 64)?;
        let mut buffer = [0; 65];
        for (offset, len, inside) in BOUNDS {
            let bytes = &mut buffer[..len];
            assert_eq!(part.read_at(offset, bytes).is_ok(), inside);
            assert_eq!(part.write_at(offset, bytes).is_ok(), inside);
        }
        part.write_at(0, &[1])?;
        part.write_at(63, &[2])?;
        let mut seen = [0xff; 66];
        Memory::persistent(&device, 0, 4096)?.read_at(99, &mut seen)?;
        let mut expected = [0; 66];
        (expected[1], expected[64]) = (1, 2);
        assert!(seen == expected);
        Ok(())
    }

    #[test]
    fn device_that_was_unbound_is_enodev() -> Result {
        let device = Device::new(4096)?;
        let mut owned = Memory::persistent(&device, 0, 64)?;
        let memory = Memory::persistent(&device, 64, 64)?.expose();
        let other = Memory::zeroed(64)?.expose();
        owned.write_at(0, &[1])?;
        device.unbind();
        let mut bytes = [0; 64];
        for len in [1, 64] {
            assert!(refused(owned.read_at(0, &mut bytes[..len]), ENODEV));
            assert!(refused(owned.write_at(0, &bytes[..len]), ENODEV));
            assert!(refused(Exposed::copy(&memory, 0, &other, 0, len), ENODEV));
            assert!(refused(Exposed::copy(&other, 0, &memory, 0, len), ENODEV));
        }
        // What is out of bounds is so still.
        assert!(refused(owned.read_at(64, &mut bytes[..1]), EINVAL));
        Ok(())
    }
}
