// SPDX-License-Identifier: GPL-2.0

//! The door to the probes: what the kernel wrote back to persistent memory, in order.
//!
//! A write-back is recorded when the kernel's primitive is entered, with the content of its lines;
//! a copy around the cache when it returns, with its bytes; a flush when `nvdimm_flush()` is entered, whose first act is the fence.

use kernel::{error::to_result, prelude::*, types::NotThreadSafe};

extern "C" {
    fn kfi_wb_start() -> c_int;
    fn kfi_wb_stop();
    fn kfi_wb_watch(addr: u64, len: u64, delay_us: u32);
    fn kfi_wb_take(
        addr: *mut u64,
        len: *mut u64,
        around: *mut bool,
        bytes: *mut c_void,
        size: usize,
    ) -> c_long;
}

/// What the kernel did.
#[derive(Clone, Copy)]
pub(crate) enum Event {
    /// It wrote back the lines that cover `len` bytes from `addr`.
    WriteBack {
        /// The address, as the primitive got it.
        addr: u64,
        /// The length, as the primitive got it.
        len: u64,
        /// How many bytes of the watched lines' content were copied.
        captured: usize,
    },
    /// It stored bytes around the cache.
    Around {
        /// The first of those that are watched.
        addr: u64,
        /// How many of them there are; all were copied.
        len: usize,
    },
    /// It fenced, and flushed the device.
    Flush,
}

/// The probes, which record until they are dropped. One at a time.
pub(crate) struct Probe {
    /// The first address of interest.
    watched: u64,
    _not_send: NotThreadSafe,
}

impl Probe {
    /// Sets the probes. Process context, may sleep.
    ///
    /// # Errors
    /// - `ENOMEM`: no memory for the log.
    /// - Others: the kernel cannot be probed, or lacks libnvdimm.
    pub(crate) fn start() -> Result<Probe> {
        // SAFETY: The module's tests run one after the other, and each drops its probe.
        to_result(unsafe { kfi_wb_start() })?;
        Ok(Probe {
            watched: 0,
            _not_send: NotThreadSafe,
        })
    }

    /// Records only what is in `len` bytes from `addr`, a line's, and holds each primitive up.
    pub(crate) fn watch(&mut self, addr: u64, len: u64, delay_us: u32) {
        self.watched = addr;
        // SAFETY: The log is there as long as `self`.
        unsafe { kfi_wb_watch(addr, len, delay_us) }
    }

    /// Takes the oldest event, and copies the watched lines of a write-back to `lines`.
    ///
    /// # Errors
    /// - `EMSGSIZE`: they don't fit.
    /// - `EOVERFLOW`: an event was lost.
    pub(crate) fn take(&mut self, lines: &mut [u8]) -> Result<Option<Event>> {
        let (mut addr, mut len, mut around) = (0, 0, false);

        // SAFETY: The log is there as long as `self`, and the rest are places for the results.
        let taken = unsafe {
            kfi_wb_take(
                &mut addr,
                &mut len,
                &mut around,
                lines.as_mut_ptr().cast(),
                lines.len(),
            )
        };
        match usize::try_from(taken) {
            Ok(_) if addr == 0 => Ok(Some(Event::Flush)),
            Ok(captured) if around => Ok(Some(Event::Around {
                addr: addr.max(self.watched),
                len: captured,
            })),
            Ok(captured) => Ok(Some(Event::WriteBack {
                addr,
                len,
                captured,
            })),
            Err(_) if taken == ENOENT.to_errno() as c_long => Ok(None),
            Err(_) => Err(Error::from_errno(taken as c_int)),
        }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        // SAFETY: They were set by `start`, and are removed once.
        unsafe { kfi_wb_stop() }
    }
}
