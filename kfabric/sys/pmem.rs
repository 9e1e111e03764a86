// SPDX-License-Identifier: GPL-2.0

//! Persistent memory: a block device in fsdax mode, mapped as a whole.
//!
//! # Unbinding
//!
//! A device can be unbound from its driver at any time, and its mapping goes with it. Every access
//! of the CPU therefore stands inside `dax_read_lock()` and begins with `dax_alive()`:
//! `kill_dax()`, which the driver calls before it unmaps, clears that flag and then waits in
//! `synchronize_srcu()` for those that saw it set (drivers/dax/super.c; `pmem_release_disk()` in
//! drivers/nvdimm/pmem.c is the last action added, so the first to run). An access that comes later
//! ends in ENODEV. The SRCU read lock is taken in any context but NMI.
//!
//! `kill_dax()` first tells the holder, which is how [`Pmem::is_gone`] knows early.
//!
//! # Locks
//!
//! `HOLDS`, a mutex. Inside `dax_read_lock()` when a device is going; nothing is taken inside it.
//!
//! Source: drivers/dax/super.c, drivers/nvdimm/pmem.c, block/bdev.c.

use super::{
    bindings as door,
    copy::{Source, Window},
};
use core::{
    mem::ManuallyDrop,
    ptr::{self, NonNull},
};
use kernel::{
    bindings,
    error::{from_err_ptr, to_result},
    impl_has_work, new_work,
    prelude::*,
    str::{CStr, CString},
    sync::{
        atomic::{Acquire, Atomic, AtomicFlag, Relaxed, Release},
        global_lock, Arc,
    },
    task::might_sleep,
    types::NotThreadSafe,
    workqueue::{Queue, Work, WorkItem},
};

/// How many bytes are written back between two chances to schedule.
const CHUNK: usize = 1 << 20;

/// A persistent-memory block device in fsdax mode, held exclusively and mapped as a whole.
///
/// It may be dropped in any context: it is closed by a work item. An [`Pmem::open`] of the same
/// device that comes later waits for that.
pub struct Pmem {
    /// Moved to the queue by dropping it, so that the last reference is never dropped here.
    hold: ManuallyDrop<Arc<Hold>>,
    queue: &'static Queue,
}

impl Pmem {
    /// Opens the device at `path`, for example `/dev/pmem0`, to read and write.
    ///
    /// Process context, may sleep. The device must be one mapping of its own pages: a namespace in
    /// fsdax mode or a partition of one, not a stack of devices. Each error is logged in a line that
    /// says what to do.
    ///
    /// # Errors
    /// - `ENOENT`: there is no such path.
    /// - `ENOTBLK`: it is not a block device.
    /// - `ENODEV`: no device is behind it, or the device is just being removed.
    /// - `EACCES`: it is read-only, or the path is on a file system mounted nodev.
    /// - `EBUSY`: somebody else holds it: a file system, another user of kfabric.
    /// - `EOPNOTSUPP`: it is not page-backed persistent memory in one piece.
    /// - `EIO`: some of it is known to be bad.
    /// - `ENOMEM`: out of memory.
    pub fn open(path: &CStr) -> Result<Arc<Pmem>> {
        Self::open_quietly(path).inspect_err(|&e| {
            let why = match e {
                ENOENT => "no such file; is the driver nd_pmem bound?",
                ENOTBLK => "not a block device",
                ENODEV => "no device behind it",
                EACCES => "read-only, or on a file system mounted nodev",
                EBUSY => "in use; unmount it or close its other user",
                EOPNOTSUPP => {
                    "not page-backed persistent memory in one piece; make it a namespace in fsdax \
                     mode (ndctl create-namespace -f -e NAMESPACE -m fsdax)"
                }
                EIO => "has bad blocks; see the device's badblocks file in sysfs",
                _ => "cannot be opened",
            };
            pr_err!("{path}: {why} ({e:?})\n");
        })
    }

    fn open_quietly(path: &CStr) -> Result<Arc<Pmem>> {
        let queue = queue()?;

        // SAFETY: The queue lives until the module goes. What it waits for is the closing of other
        // devices, which waits for nobody here.
        unsafe { bindings::__flush_workqueue(ptr::from_ref(queue).cast_mut().cast()) };

        let name = CString::try_from(path)?;
        let bdev = Bdev::open(&name)?;
        let (dax, start) = Dax::hold(&bdev, &name)?;
        let (base, len) = dax.map(&bdev, start)?;

        Self::keep(queue, dax, Backing::Block(bdev), name, base, len)
    }

    /// Keeps what was opened, until the last user drops it.
    fn keep(
        queue: &'static Queue,
        dax: Dax,
        backing: Backing,
        name: CString,
        base: NonNull<u8>,
        len: usize,
    ) -> Result<Arc<Pmem>> {
        let hold = Arc::pin_init(
            pin_init!(Hold {
                dax,
                backing,
                name,
                base,
                len,
                gone: Atomic::new(false),
                close <- new_work!("Pmem::close"),
            }? Error),
            GFP_KERNEL,
        )?;
        // From here the device is closed by dropping `pmem`.
        let hold = ManuallyDrop::new(hold);
        let pmem = Arc::new(Pmem { hold, queue }, GFP_KERNEL)?;
        HOLDS.lock().push((*pmem.hold).clone(), GFP_KERNEL)?;
        Ok(pmem)
    }

    /// Returns the path it was opened with.
    pub fn name(&self) -> &CStr {
        &self.hold.name
    }

    /// Returns its size in bytes, a multiple of the page size and never 0.
    pub fn len(&self) -> u64 {
        self.hold.len as u64
    }

    /// Returns false: a device without a byte cannot be opened.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Returns whether the device was unbound, or is just being; every later access is ENODEV.
    ///
    /// Any context.
    pub fn is_gone(&self) -> bool {
        self.hold.gone.load(Relaxed) || self.access().is_err()
    }

    /// Keeps the device's mapping for as long as the guard lives; any context.
    ///
    /// The unbinding of any dax device waits for it, so keep it short.
    ///
    /// # Errors
    /// - `ENODEV`: the device is gone.
    pub(crate) fn access(&self) -> Result<Access<'_>> {
        let access = Access {
            pmem: self,
            // SAFETY: Always safe to call; `Access` unlocks.
            id: unsafe { door::dax_read_lock() },
            not_send: NotThreadSafe,
        };

        // SAFETY: The dax device is referenced by `hold.dax`, and the lock is held.
        if unsafe { door::dax_alive(self.hold.dax.dax.as_ptr()) } {
            Ok(access)
        } else {
            Err(ENODEV)
        }
    }

    /// Checks that `len` bytes from `offset` are there; any context.
    ///
    /// # Errors
    /// - `EINVAL`: out of bounds.
    /// - `ENODEV`: the device is gone.
    pub(crate) fn check(&self, offset: usize, len: usize) -> Result {
        self.access()?.window().sub(offset, len).map(drop)
    }

    /// Writes back the cache lines that cover `len` bytes from `offset`, and fences them.
    ///
    /// Process context, may sleep.
    ///
    /// # Errors
    /// - `EINVAL`: out of bounds.
    /// - `ENODEV`: the device is gone.
    pub(crate) fn write_back(&self, offset: usize, len: usize) -> Result {
        might_sleep();

        // Also for no bytes: a device that is gone flushes for a moment yet.
        self.check(offset, len)?;

        let mut done = 0;
        while done < len {
            let part = CHUNK.min(len - done);
            let access = self.access()?;
            let window = access
                .window()
                .sub(offset.checked_add(done).ok_or(EINVAL)?, part)?;

            // SAFETY: The window's bytes are mapped while `access` lives.
            unsafe { door::kfi_pmem_write_back(window.as_ptr().cast(), window.len()) };
            drop(access);

            done += part;
            if done < len {
                // SAFETY: Process context, no lock held.
                unsafe { door::kfi_pmem_relax() };
            }
        }
        Ok(())
    }

    /// Flushes what the device buffers itself, for all of it.
    ///
    /// Process context, may sleep. Does not allocate for a device on the memory bus: the request
    /// stands on the stack, and the driver writes its flush hints. A paravirtual device allocates a
    /// request for the host.
    ///
    /// # Errors
    /// - `ENODEV`: the device is gone.
    /// - `EIO` and others of the device: what was written may not be durable.
    ///
    /// Source: `blkdev_issue_flush()`, `pmem_submit_bio()`, `nvdimm_flush()`.
    pub(crate) fn flush(&self) -> Result {
        might_sleep();

        self.hold
            .backing
            .flush()
            .map_err(|e| if self.is_gone() { ENODEV } else { e })
    }
}

impl Drop for Pmem {
    fn drop(&mut self) {
        // SAFETY: `self` is not used again.
        let hold = unsafe { ManuallyDrop::take(&mut self.hold) };

        // It cannot be on the queue yet, for this is the only place that puts it there.
        let _ = self.queue.enqueue(hold);
    }
}

/// The right to touch a device's bytes: it is alive, and its unbinding waits.
///
/// # Invariants
///
/// `dax_read_lock()` was called and gave `id`, and once [`Pmem::access`] has returned it,
/// `dax_alive()` was true inside it.
pub(crate) struct Access<'a> {
    pmem: &'a Pmem,
    id: c_int,
    not_send: NotThreadSafe,
}

impl Access<'_> {
    /// Returns a window on all bytes of the device.
    pub(crate) fn window(&self) -> Window<'_> {
        let hold = &self.pmem.hold;

        // SAFETY: By the type invariant the device was alive inside dax_read_lock(), which is still
        // held, so that kill_dax() waits in synchronize_srcu() and the driver has not unmapped
        // the `len` bytes that it mapped at `base`. No Rust reference to them is ever formed.
        unsafe { Window::new(hold.base, hold.len, Source::Medium) }
    }
}

impl Drop for Access<'_> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant this is the lock's own number, unlocked once.
        unsafe { door::dax_read_unlock(self.id) };
    }
}

/// What holds a device: all that is undone, in this order and in process context, at its end.
#[pin_data]
struct Hold {
    dax: Dax,
    backing: Backing,
    name: CString,
    base: NonNull<u8>,
    len: usize,
    gone: Atomic<bool>,
    #[pin]
    close: Work<Hold>,
}

// SAFETY: The pointers are to kernel objects that are used and released by any task.
unsafe impl Send for Hold {}
// SAFETY: Only functions that take care of concurrency themselves are called with them.
unsafe impl Sync for Hold {}

impl_has_work! {
    impl HasWork<Self> for Hold { self.close }
}

impl WorkItem for Hold {
    type Pointer = Arc<Hold>;

    fn run(this: Arc<Hold>) {
        let mut holds = HOLDS.lock();
        holds.retain(|hold| !Arc::ptr_eq(hold, &this));
        if holds.is_empty() {
            // A static is never dropped, so its room would be lost when the module goes.
            *holds = KVec::new();
        }
        drop(holds);
        // The last reference, for that of `Pmem` is the one that came here.
        drop(this);
    }
}

/// What a device's mapping stands on, and what flushes it.
enum Backing {
    Block(Bdev),
    /// Of a test: it always flushes, also once the mapping is gone.
    #[cfg(CONFIG_KUNIT = "y")]
    Memory {
        _bytes: super::copy::SharedBytes,
    },
}

impl Backing {
    fn flush(&self) -> Result {
        match self {
            // SAFETY: The block device is open. Once it is removed, bio_queue_enter() refuses the
            // request; until then removal waits for it.
            Backing::Block(bdev) => to_result(unsafe { bindings::blkdev_issue_flush(bdev.bdev()) }),
            #[cfg(CONFIG_KUNIT = "y")]
            Backing::Memory { .. } => Ok(()),
        }
    }
}

/// An open block device.
///
/// # Invariants
///
/// The file is that of an open block device, and owned.
struct Bdev(NonNull<bindings::file>);

impl Bdev {
    /// Opens it exclusively. The address of `name` is the holder's.
    fn open(name: &CString) -> Result<Bdev> {
        // SAFETY: `name` is a string, and an address of its own as long as the device is open.
        let file = from_err_ptr(unsafe {
            door::kfi_pmem_open(name.as_char_ptr(), name.as_char_ptr().cast_mut().cast())
        });

        // INVARIANT: What was returned is the open file, with a reference for the caller.
        match file {
            Ok(file) => Ok(Bdev(NonNull::new(file).ok_or(ENODEV)?)),
            Err(ENXIO) => Err(ENODEV),
            Err(e) => Err(e),
        }
    }

    fn bdev(&self) -> *mut bindings::block_device {
        // SAFETY: By the type invariant it is the file of an open block device.
        unsafe { bindings::file_bdev(self.0.as_ptr()) }
    }
}

impl Drop for Bdev {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the file is open, and owned. Process context, see `Hold`.
        unsafe { bindings::bdev_fput(self.0.as_ptr()) };
    }
}

/// A dax device that is held.
///
/// # Invariants
///
/// `dax` is referenced, and was held by `holder`.
struct Dax {
    dax: NonNull<door::dax_device>,
    holder: *mut c_void,
}

impl Dax {
    /// Holds the dax device of `bdev`; returns it and where `bdev` begins.
    fn hold(bdev: &Bdev, name: &CString) -> Result<(Dax, u64)> {
        let holder = name.as_char_ptr().cast_mut().cast();
        let mut dax = ptr::null_mut();
        let mut start = 0;

        // SAFETY: `bdev` is open, and the rest are places for the results.
        to_result(unsafe { door::kfi_pmem_hold(bdev.bdev(), holder, &mut dax, &mut start) })?;

        // INVARIANT: The call returned a reference, and holds it.
        let dax = Dax {
            dax: NonNull::new(dax).ok_or(ENODEV)?,
            holder,
        };
        Ok((dax, start))
    }

    /// Returns where all of `bdev`, which begins at `start`, is mapped, and its length.
    fn map(&self, bdev: &Bdev, start: u64) -> Result<(NonNull<u8>, usize)> {
        let mut base = ptr::null_mut();
        let mut len = 0;

        // SAFETY: Both devices are held, and the rest are places for the results.
        to_result(unsafe {
            door::kfi_pmem_map(bdev.bdev(), self.dax.as_ptr(), start, &mut base, &mut len)
        })?;
        Ok((NonNull::new(base.cast()).ok_or(EOPNOTSUPP)?, len as usize))
    }
}

impl Drop for Dax {
    fn drop(&mut self) {
        // SAFETY: By the type invariant it is referenced, and held by `holder` unless kill_dax() took
        // that away, which fs_put_dax() tells apart. Process context, see `Hold`.
        unsafe { door::fs_put_dax(self.dax.as_ptr(), self.holder) };
    }
}

global_lock! {
    // SAFETY: `Service::start` initialises it, before any device can be opened.
    unsafe(uninit) static HOLDS: Mutex<KVec<Arc<Hold>>> = KVec::new();
}

/// The queue on which devices are closed, or null.
static QUEUE: Atomic<*mut bindings::workqueue_struct> = Atomic::new(ptr::null_mut());

/// Whether [`Service::start`] was called.
static STARTED: AtomicFlag = AtomicFlag::new(false);

fn queue() -> Result<&'static Queue> {
    let queue = NonNull::new(QUEUE.load(Acquire)).ok_or(ENODEV)?;

    // SAFETY: `Service` keeps the queue until the module goes.
    Ok(unsafe { Queue::from_raw(queue.as_ptr()) })
}

/// Tells the holder that `len` bytes from `offset` of a device fail, or all of it goes.
///
/// Called by drivers/dax/super.c inside dax_read_lock(), in process context.
#[no_mangle]
extern "C" fn kfi_pmem_failure(
    dax: *mut door::dax_device,
    offset: u64,
    len: u64,
    flags: c_int,
) -> c_int {
    // By the device and not by the holder's address: fs_put_dax() does not wait for this call, so
    // that the `Hold` may be gone by now, which the lock shows.
    let holds = HOLDS.lock();
    let Some(hold) = holds.iter().find(|hold| hold.dax.dax.as_ptr() == dax) else {
        return EOPNOTSUPP.to_errno();
    };

    // SAFETY: A constant of the C side.
    if flags & unsafe { door::kfi_pmem_pre_remove } != 0 {
        hold.gone.store(true, Release);
        pr_info!(
            "{}: the device is removed; its memory is ENODEV from now on\n",
            &*hold.name
        );
        return 0;
    }
    pr_err!("{}: memory failure, {len} bytes at {offset}\n", &*hold.name);
    // The kernel goes on as it would without a holder.
    EOPNOTSUPP.to_errno()
}

const _: unsafe extern "C" fn(*mut door::dax_device, u64, u64, c_int) -> c_int = if true {
    kfi_pmem_failure
} else {
    door::kfi_pmem_failure
};

/// What this file needs as long as the module is loaded; start it once, before anything is opened.
pub(crate) struct Service {
    queue: NonNull<bindings::workqueue_struct>,
    fence: NonNull<door::dax_device>,
}

// SAFETY: Both are used by `start` and `drop` only.
unsafe impl Send for Service {}
// SAFETY: There is nothing to be done with a shared one.
unsafe impl Sync for Service {}

impl Service {
    /// Starts it; process context, may sleep.
    ///
    /// # Errors
    /// - `EBUSY`: it was started before.
    /// - `ENOMEM`: out of memory.
    pub(crate) fn start() -> Result<Service> {
        if STARTED.xchg(true, Relaxed) {
            return Err(EBUSY);
        }
        // SAFETY: Once, as `STARTED` shows, and before a queue lets anybody open a device.
        unsafe { HOLDS.init() };

        // SAFETY: A constant string without a format.
        let queue = unsafe {
            bindings::alloc_workqueue_noprof(
                c"kfabric_pmem".as_char_ptr(),
                // Devices may be opened and closed in memory reclaim, which waits for it.
                bindings::wq_flags_WQ_UNBOUND | bindings::wq_flags_WQ_MEM_RECLAIM,
                0,
            )
        };
        let queue = NonNull::new(queue).ok_or(ENOMEM)?;

        // SAFETY: A dax device without operations is allowed: it is what device-dax allocates.
        let fence = from_err_ptr(unsafe { door::alloc_dax(ptr::null_mut(), ptr::null()) })
            .and_then(|fence| NonNull::new(fence).ok_or(ENOMEM))
            .inspect_err(|_| {
                // SAFETY: The queue was allocated above, and nobody knows it.
                unsafe { bindings::destroy_workqueue(queue.as_ptr()) }
            })?;

        QUEUE.store(queue.as_ptr(), Release);
        Ok(Service { queue, fence })
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        QUEUE.store(ptr::null_mut(), Relaxed);
        // SAFETY: No device is open any more, for whoever opens one has a reference to this module.
        // Those that are just being closed are waited for.
        unsafe { bindings::destroy_workqueue(self.queue.as_ptr()) };
        // fs_put_dax() does not wait for a kfi_pmem_failure() that was already on its way, but it
        // runs inside dax_read_lock(), and killing a dax device, here one of no other use, waits
        // for everybody in there.
        // SAFETY: It was allocated by `start` and is not used again.
        unsafe { door::kill_dax(self.fence.as_ptr()) };
        // SAFETY: As above; this is the only reference.
        unsafe { door::put_dax(self.fence.as_ptr()) };
    }
}

/// Devices of ordinary memory, for tests.
#[cfg(CONFIG_KUNIT = "y")]
pub(crate) mod testing {
    use super::*;
    use crate::sys::copy::SharedBytes;

    /// A device that the test unbinds, at the latest by dropping this.
    ///
    /// Unbound, its mapping is dead and its block device flushes still, as a device does from
    /// `kill_dax()` until `del_gendisk()`.
    pub(crate) struct Device(Arc<Pmem>);

    impl Device {
        /// Makes a device of `len` bytes of value 0.
        pub(crate) fn new(len: usize) -> Result<Self> {
            let bytes = SharedBytes::new(KVVec::zeroed(len, GFP_KERNEL)?);
            let base = NonNull::new(bytes.window().as_ptr()).ok_or(EINVAL)?;
            let name = CString::try_from(c"kunit")?;
            // SAFETY: A dax device without operations, as that of `Service`.
            let raw = from_err_ptr(unsafe { door::alloc_dax(ptr::null_mut(), ptr::null()) })?;
            // INVARIANT: The call returned a reference; without a holder nobody holds it.
            let dax = Dax {
                dax: NonNull::new(raw).ok_or(ENOMEM)?,
                holder: ptr::null_mut(),
            };
            let backing = Backing::Memory { _bytes: bytes };
            let pmem = Pmem::keep(queue()?, dax, backing, name, base, len)?;
            Ok(Device(pmem))
        }

        /// Unbinds it: what the driver does first.
        pub(crate) fn unbind(&self) {
            // SAFETY: `Hold` has a reference to the dax device, which may be killed twice.
            unsafe { door::kill_dax(self.0.hold.dax.dax.as_ptr()) };
        }

        /// Tells the holder that it is going to be unbound.
        pub(crate) fn announce(&self) -> c_int {
            let dax = self.0.hold.dax.dax.as_ptr();
            // SAFETY: A constant of the C side.
            kfi_pmem_failure(dax, 0, u64::MAX, unsafe { door::kfi_pmem_pre_remove })
        }
    }

    impl core::ops::Deref for Device {
        type Target = Arc<Pmem>;

        fn deref(&self) -> &Arc<Pmem> {
            &self.0
        }
    }

    impl Drop for Device {
        fn drop(&mut self) {
            self.unbind();
        }
    }
}

#[kunit_tests(kfabric_pmem)]
mod tests {
    use super::testing::Device;
    use super::*;

    const LEN: usize = 2 * CHUNK + 4096;

    #[test]
    fn write_back_stays_within_the_device() -> Result {
        let device = Device::new(LEN)?;
        for (offset, len, inside) in [
            (0, 0, true),
            (0, LEN, true),
            (0, LEN + 1, false),
            (1, LEN - 1, true),
            (1, LEN, false),
            (LEN - 1, 1, true),
            (LEN, 0, true),
            (LEN, 1, false),
            (LEN + 1, 0, false),
            (1, usize::MAX, false),
        ] {
            let expected = if inside { Ok(()) } else { Err(EINVAL) };
            assert_eq!(device.write_back(offset, len), expected);
        }
        Ok(())
    }

    #[test]
    fn unbound_device_writes_nothing_back_not_even_no_byte() -> Result {
        let device = Device::new(LEN)?;
        assert!(!device.is_gone() && device.access().is_ok());
        device.unbind();
        assert!(device.is_gone());
        assert_eq!(device.access().err(), Some(ENODEV));
        // Its block device is not what refuses.
        assert_eq!(device.flush(), Ok(()));
        for (offset, len) in [(0, 0), (0, 1), (0, LEN), (LEN, 0)] {
            assert_eq!(device.write_back(offset, len), Err(ENODEV));
        }
        Ok(())
    }

    #[test]
    fn holder_knows_of_the_unbinding_before_it_happens() -> Result {
        let (going, staying) = (Device::new(4096)?, Device::new(4096)?);
        assert_eq!(going.announce(), 0);
        assert!(going.is_gone() && !staying.is_gone());
        // It is there still for who is at it.
        assert!(going.access().is_ok());
        Ok(())
    }

    #[test]
    fn device_that_nobody_holds_is_told_nothing() -> Result {
        let device = Device::new(4096)?;
        HOLDS.lock().retain(|hold| !Arc::ptr_eq(hold, &device.hold));
        assert_eq!(device.announce(), EOPNOTSUPP.to_errno());
        assert!(!device.is_gone());
        Ok(())
    }
}
