// SPDX-License-Identifier: GPL-2.0

//! Memory of a device that is not on the memory bus: a PCI BAR, mapped by its driver and lent.
//!
//! # Removal
//!
//! The driver keeps a [`Lender`] in what it has for the device, which goes when the device is
//! unbound. Every access of the CPU stands in an RCU read section and begins with a look at a flag:
//! the drop of the lender sets it, waits in `synchronize_rcu()` for those that saw it clear, and
//! only then unmaps the BAR. An access that comes later ends in ENODEV. A lender that is forgotten
//! leaves the BAR mapped.
//!
//! # Bytes
//!
//! They are copied with `memcpy_toio()` and `memcpy_fromio()`: no page, no cache, and no atomic
//! stands behind them. A write to a device is posted: it is on its way, in order, and a read of the
//! same device comes after it.
//!
//! Source: Documentation/driver-api/device-io.rst.

use super::copy::{Source, Window};
use core::ptr::NonNull;
use kernel::{
    bindings,
    prelude::*,
    sync::{
        atomic::{Acquire, Atomic, Release},
        rcu, Arc,
    },
};

/// The most bytes that are copied in one RCU read section.
pub(crate) const CHUNK: usize = 64 << 10;

/// Memory of a device, for as long as its driver lends it.
///
/// # Invariants
///
/// While `gone` is false, `len` bytes from `base` are I/O memory that is mapped, and they stay so in
/// any RCU read section that has seen it false.
pub struct DeviceMemory {
    base: NonNull<u8>,
    len: usize,
    gone: Atomic<bool>,
}

// SAFETY: The pointer is to I/O memory, which any task may use.
unsafe impl Send for DeviceMemory {}
// SAFETY: It is only used by copies, which may be made at once.
unsafe impl Sync for DeviceMemory {}

impl DeviceMemory {
    /// Returns how many bytes there are.
    pub fn len(&self) -> u64 {
        self.len as u64
    }

    /// Returns whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns whether it was taken back; every later access is ENODEV. Any context.
    pub fn is_gone(&self) -> bool {
        self.gone.load(Acquire)
    }

    /// Keeps it mapped for as long as the guard lives; any context but hardirq.
    ///
    /// # Errors
    /// - `ENODEV`: the device is gone.
    pub(crate) fn access(&self) -> Result<Access<'_>> {
        let section = rcu::read_lock();
        if self.is_gone() {
            return Err(ENODEV);
        }
        // INVARIANT: Just seen, in the read section.
        Ok(Access {
            memory: self,
            _section: section,
        })
    }
}

/// The right to touch the bytes: they are mapped, and their unmapping waits.
///
/// # Invariants
///
/// The flag was seen false in the read section.
pub(crate) struct Access<'a> {
    memory: &'a DeviceMemory,
    _section: rcu::Guard,
}

impl Access<'_> {
    /// Returns a window on all bytes.
    pub(crate) fn window(&self) -> Window<'_> {
        // SAFETY: By the type invariants the bytes are mapped as long as the read section lasts,
        // which is as long as `self`. No reference to them is ever formed.
        unsafe { Window::new(self.memory.base, self.memory.len, Source::Device) }
    }
}

/// What is mapped, and unmapped by its drop.
enum Mapping<'a> {
    #[cfg(CONFIG_PCI)]
    Bar { _bar: kernel::pci::Bar<'a> },
    /// Of a test.
    #[cfg(CONFIG_KUNIT = "y")]
    Memory { _bytes: super::copy::SharedBytes },
    #[allow(dead_code)]
    Nothing(core::marker::PhantomData<&'a ()>),
}

/// Lends the memory of a device to the fabric until it is dropped, which takes it back.
///
/// For the driver's data of the device. The drop waits for the copies that are under way, each of
/// at most 64 KiB: process context, may sleep.
#[must_use = "dropping it takes the memory back"]
pub struct Lender<'a> {
    memory: Arc<DeviceMemory>,
    // After the drop has taken the memory back.
    _mapping: Mapping<'a>,
}

impl<'a> Lender<'a> {
    /// Lends all of a BAR. May sleep. `ENOMEM`.
    #[cfg(CONFIG_PCI)]
    pub fn new(bar: kernel::pci::Bar<'a>) -> Result<Self> {
        use kernel::io::{IoBackend, IoBase, MmioBackend};

        let place = MmioBackend::as_ptr((&bar).as_view());
        let base = NonNull::new(place.cast::<u8>()).ok_or(EINVAL)?;
        let len = kernel::ptr::KnownSize::size(place.cast_const());
        Self::lend(base, len, Mapping::Bar { _bar: bar })
    }

    fn lend(base: NonNull<u8>, len: usize, mapping: Mapping<'a>) -> Result<Self> {
        // INVARIANT: `mapping` keeps the bytes mapped, and is dropped by `Lender` only.
        let memory = DeviceMemory {
            base,
            len,
            gone: Atomic::new(false),
        };
        Ok(Lender {
            memory: Arc::new(memory, GFP_KERNEL)?,
            _mapping: mapping,
        })
    }

    /// What is lent.
    pub fn memory(&self) -> &Arc<DeviceMemory> {
        &self.memory
    }
}

impl Drop for Lender<'_> {
    fn drop(&mut self) {
        self.memory.gone.store(true, Release);
        rcu::synchronize_rcu();
    }
}

/// Copies between windows of which one at least is on a device; they may overlap.
///
/// Both are equally long.
#[cold]
pub(super) fn copy(dst: Window<'_>, src: Window<'_>) -> Result {
    let (to, from, len) = (dst.as_ptr(), src.as_ptr(), src.len());
    match (dst.source(), src.source()) {
        (Source::Device, Source::Memory) => {
            // SAFETY: By the type invariants `len` bytes are mapped on both sides, those of `dst` as
            // I/O memory; C takes the race with other writers.
            unsafe { bindings::memcpy_toio(to.cast(), from.cast(), len) };
            Ok(())
        }
        (Source::Device, _) => through(dst, src),
        _ => {
            // SAFETY: As above; here those of `src` are I/O memory.
            unsafe { bindings::memcpy_fromio(to.cast(), from.cast(), len) };
            dst.settle();
            Ok(())
        }
    }
}

/// Copies to a device what comes from another or from a medium, part by part through the stack.
fn through(dst: Window<'_>, src: Window<'_>) -> Result {
    let mut room = [0u8; 256];
    // What overlaps is copied from the end that is not overwritten.
    let ascends = dst.as_ptr() <= src.as_ptr();
    let mut done = 0;
    while done < src.len() {
        let part = room.len().min(src.len() - done);
        let at = if ascends {
            done
        } else {
            src.len() - done - part
        };
        src.sub(at, part)?.read(&mut room[..part])?;
        dst.sub(at, part)?.write(&room[..part])?;
        done += part;
    }
    Ok(())
}

/// Lenders of ordinary memory, for tests.
#[cfg(CONFIG_KUNIT = "y")]
pub(crate) mod testing {
    use super::*;
    use crate::sys::copy::SharedBytes;

    /// Lends `len` bytes of value 0.
    pub(crate) fn lender(len: usize) -> Result<Lender<'static>> {
        let bytes = SharedBytes::new(KVVec::zeroed(len, GFP_KERNEL)?);
        let base = NonNull::new(bytes.window().as_ptr()).ok_or(EINVAL)?;
        Lender::lend(base, len, Mapping::Memory { _bytes: bytes })
    }
}

#[kunit_tests(kfabric_sys_bar)]
mod tests {
    use super::testing::lender;
    use super::*;
    use crate::sys::copy::SharedBytes;
    use kernel::sync::{new_mutex, Mutex};
    use kernel::time::{delay::udelay, Delta};
    use kernel::workqueue::{self, impl_has_work, new_work, Work, WorkItem};

    /// As much as goes through the stack at a time.
    const ROOM: usize = 256;

    /// Memory whose bytes count through from `first` on.
    fn counting(first: usize, len: usize) -> Result<SharedBytes> {
        let mut bytes = KVVec::with_capacity(len, GFP_KERNEL)?;
        for i in first..first + len {
            bytes.push((i % 251) as u8, GFP_KERNEL)?;
        }
        Ok(SharedBytes::new(bytes))
    }

    /// Whether all bytes of a window count through from `first` on. Never sleeps, as who has access must not.
    fn counts(window: Window<'_>, first: usize) -> Result<bool> {
        let mut byte = [0];
        for i in 0..window.len() {
            window.sub(i, 1)?.read(&mut byte)?;
            if usize::from(byte[0]) != (first + i) % 251 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    #[test]
    fn lender_lends_all_of_it() -> Result {
        for len in [1, 4096] {
            let lender = lender(len)?;
            let memory = lender.memory();
            assert_eq!((memory.len(), memory.is_empty()), (len as u64, false));
            let access = memory.access()?;
            assert_eq!(access.window().len(), len);
            assert!(access.window().sub(len, 0).is_ok());
            assert!(
                access.window().sub(len, 1).is_err() && access.window().sub(0, len + 1).is_err()
            );
        }
        Ok(())
    }

    #[test]
    fn nothing_is_touched_once_it_was_taken_back() -> Result {
        let lender = lender(64)?;
        let memory = lender.memory().clone();
        assert!(!memory.is_gone() && memory.access().is_ok());
        drop(lender);
        assert!(memory.is_gone());
        assert_eq!(memory.access().err(), Some(ENODEV));
        // How many there were is known still.
        assert_eq!(memory.len(), 64);
        Ok(())
    }

    #[test]
    fn bytes_are_copied_to_a_device_and_between_two_and_back() -> Result {
        for len in [0, 1, ROOM - 1, ROOM, ROOM + 1, 2 * ROOM, 5 * ROOM + 3] {
            let (from, to) = (counting(7, len)?, counting(0, len + 2)?);
            let (one, other) = (lender(len + 2)?, lender(len + 2)?);
            let (one, other) = (one.memory().access()?, other.memory().access()?);
            copy(one.window().sub(1, len)?, from.window())?;
            copy(other.window().sub(2, len)?, one.window().sub(1, len)?)?;
            copy(to.window().sub(1, len)?, other.window().sub(2, len)?)?;
            assert!(counts(to.window().sub(1, len)?, 7)?);
            // Those beside them are as they were.
            let mut beside = [1; 4];
            one.window().sub(0, 1)?.read(&mut beside[..1])?;
            one.window().sub(len + 1, 1)?.read(&mut beside[1..2])?;
            other.window().sub(0, 2)?.read(&mut beside[2..])?;
            assert_eq!(beside, [0; 4]);
            assert!(counts(to.window().sub(0, 1)?, 0)?);
            assert!(counts(to.window().sub(len + 1, 1)?, len + 1)?);
        }
        Ok(())
    }

    #[test]
    fn bytes_of_one_device_may_overlap() -> Result {
        const LEN: usize = 3 * ROOM;
        let (before, lender) = (counting(0, 3 * LEN)?, lender(3 * LEN)?);
        let window = lender.memory().access()?;
        for apart in [0, 1, ROOM - 1, ROOM, ROOM + 1, LEN] {
            for (to, from) in [(LEN + apart, LEN), (LEN, LEN + apart)] {
                copy(window.window(), before.window())?;
                copy(
                    window.window().sub(to, LEN)?,
                    window.window().sub(from, LEN)?,
                )?;
                assert!(counts(window.window().sub(to, LEN)?, from)?);
                // Of the others none has changed.
                let end = to + LEN;
                assert!(counts(window.window().sub(0, to)?, 0)?);
                assert!(counts(window.window().sub(end, 3 * LEN - end)?, end)?);
            }
        }
        Ok(())
    }

    #[test]
    fn bytes_come_from_a_device_around_the_cache_too() -> Result {
        for len in [1, 63, 64, 65, 1000] {
            let (from, to, lender) = (counting(7, len)?, counting(0, len)?, lender(len)?);
            let device = lender.memory().access()?;
            copy(device.window(), from.window())?;
            copy(to.window().around(), device.window())?;
            assert!(counts(to.window(), 7)?);
        }
        Ok(())
    }

    /// Takes memory back from another thread.
    #[pin_data]
    struct Taker {
        #[pin]
        lender: Mutex<Option<Lender<'static>>>,
        /// 1 once it has begun, 2 once it has done so.
        step: Atomic<u32>,
        #[pin]
        work: Work<Taker>,
    }

    impl_has_work! {
        impl HasWork<Self> for Taker { self.work }
    }

    impl WorkItem for Taker {
        type Pointer = Arc<Taker>;

        fn run(this: Arc<Taker>) {
            let lender = this.lender.lock().take();
            this.step.store(1, Release);
            drop(lender);
            this.step.store(2, Release);
        }
    }

    #[test]
    fn taking_back_waits_for_who_has_access() -> Result {
        let lender = lender(64)?;
        let memory = lender.memory().clone();
        let taker = Arc::pin_init(
            pin_init!(Taker {
                lender <- new_mutex!(Some(lender)),
                step: Atomic::new(0),
                work <- new_work!("kfabric_bar"),
            }),
            GFP_KERNEL,
        )?;
        let access = memory.access()?;
        let _ = workqueue::system_unbound().enqueue(taker.clone());
        // For a while: on one CPU it may not even begin.
        for _ in 0..1000 {
            udelay(Delta::from_micros(50));
            access.window().write(&[0xa5; 64])?;
            if memory.is_gone() {
                // Others have no access any more, and it is mapped still.
                assert_eq!(taker.step.load(Acquire), 1);
                assert_eq!(memory.access().err(), Some(ENODEV));
            }
        }
        drop(access);
        crate::sys::work::flush(&taker.work);
        assert_eq!(taker.step.load(Acquire), 2);
        assert!(memory.is_gone());
        Ok(())
    }
}
