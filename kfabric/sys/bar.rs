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
