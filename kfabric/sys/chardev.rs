// SPDX-License-Identifier: GPL-2.0

//! A character device that behaves as a file of fixed size.
//!
//! The kernel crate's `MiscDevice` has no fsync and no llseek, its name is fixed at compile time,
//! and a device that goes takes nothing away from files that are still open. A [`CharDevice`] has
//! all four. It stands on a misc device, so its node appears in `/dev` by itself, mode 0600.
//!
//! It does not offer mmap (ENODEV), ioctl (ENOTTY), poll or non-blocking I/O.
//!
//! # Removal
//!
//! [`Registration::unregister`] removes the node, makes every later call on files that are still
//! open fail with ENODEV, waits for the calls that run, and gives the device back by value: from
//! then on nobody refers to it. Only the values of open files remain, each to be dropped at its
//! last close. The module stays until then, because every open file holds a reference to it.
//!
//! # Locks
//!
//! [`CharDevice::open`] runs under the misc core's mutex, which registering and unregistering take
//! too: `open` must not take a lock that is held around those. No other method is called with a
//! lock held.

use super::bindings as door;
use core::{
    cell::UnsafeCell,
    marker::PhantomData,
    mem::ManuallyDrop, //
};
use kernel::{
    bindings,
    error::{from_result, to_result},
    fmt,
    iov::{IovIterDest, IovIterSource},
    module::this_module,
    new_srcu,
    prelude::*,
    str::CString,
    sync::{
        atomic::{Acquire, Atomic, Release},
        srcu::Srcu,
        Arc, ArcBorrow,
    },
    types::Opaque,
};

/// The bytes of a device that one call is about: `start` to `end`, `end` not included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The first byte.
    pub start: u64,
    /// The byte after the last.
    pub end: u64,
}

/// What a character device does; implement it with `#[vtable]`.
///
/// Every method is called from process context and may sleep.
#[vtable]
pub trait CharDevice: Send + Sync + Sized + 'static {
    /// What belongs to one open file; dropped at its last close, be the device there or not.
    type File: Send + Sync + 'static;

    /// Opens the device; its error is what `open(2)` returns.
    fn open(&self) -> Result<Self::File>;

    /// Returns the size in bytes: where SEEK_END leads and an appending write starts.
    fn size(&self) -> u64;

    /// Reads what stands at `pos` into `to`; returns how many bytes, 0 at the end.
    fn read(&self, file: &Self::File, pos: u64, to: &mut IovIterDest<'_>) -> Result<usize>;

    /// Writes `from` at `pos`; returns how many bytes.
    ///
    /// For a file opened with O_DSYNC or O_SYNC, [`Self::fsync`] of these bytes follows, and its
    /// error is returned instead.
    fn write(&self, file: &Self::File, pos: u64, from: &mut IovIterSource<'_>) -> Result<usize>;

    /// Makes what was written to `extent` durable, whoever wrote it.
    ///
    /// `datasync` says that the size and the like need not be, as for `fdatasync(2)`.
    fn fsync(&self, file: &Self::File, extent: Extent, datasync: bool) -> Result;
}

/// A device and what its open files need of it.
#[pin_data]
struct Node<D> {
    #[pin]
    misc: Opaque<bindings::miscdevice>,
    /// `misc` points to it.
    name: CString,
    /// Whether the registration was dropped.
    gone: Atomic<bool>,
    /// Read-locked by each call into `device`.
    #[pin]
    calls: Srcu,
    /// There until `gone`, and until the calls that began before that have ended.
    device: UnsafeCell<ManuallyDrop<D>>,
}

// SAFETY: `misc` is written by `misc_register()` and `misc_deregister()` only, which lock it; the
// rest is `Send`.
unsafe impl<D: Send> Send for Node<D> {}
// SAFETY: As above; the device is shared until one thread takes it out, hence `Send` too.
unsafe impl<D: Send + Sync> Sync for Node<D> {}

/// What each call into a device is inside of.
// Not generic, and never inlined, since lockdep wants one address of the lock's name.
#[inline(never)]
fn new_calls() -> impl PinInit<Srcu, Error> {
    new_srcu!("kfabric::chardev")
}

/// What `private_data` of an open file points to.
struct Open<D: CharDevice> {
    node: Arc<Node<D>>,
    file: D::File,
}

impl<D: CharDevice> Node<D> {
    /// Calls `f` unless the device is gone.
    fn call<R>(&self, f: impl FnOnce(&D) -> Result<R>) -> Result<R> {
        let _guard = self.calls.read_lock();
        if self.gone.load(Acquire) {
            return Err(ENODEV);
        }
        // SAFETY: It was not gone when the guard was there already, so that `Registration::end`
        // waits for the guard before it takes the device out.
        f(unsafe { &*self.device.get() })
    }
}

/// A character device that is there; dropping it unregisters and drops the device.
///
/// # Invariants
///
/// `node.misc` is registered, and the node's device is there.
#[must_use = "dropping it removes the device"]
pub struct Registration<D: CharDevice> {
    node: Arc<Node<D>>,
}

impl<D: CharDevice> Registration<D> {
    /// Registers `device` as `/dev/<name>`.
    ///
    /// May sleep. The caller keeps names apart: the kernel complains loudly of a second device of
    /// the same name.
    ///
    /// # Errors
    /// - `EBUSY`: no minor number is left.
    /// - `EEXIST`: there is a misc device of that name.
    /// - `ENOMEM`.
    pub fn new(name: fmt::Arguments<'_>, device: D) -> Result<Self> {
        let name = CString::try_from_fmt(name)?;
        let node = Arc::pin_init(
            try_pin_init!(Node {
                misc <- Opaque::ffi_init(|slot: *mut bindings::miscdevice| {
                    // SAFETY: `slot` is ours to write; the zeroed value of a C struct is valid.
                    unsafe { slot.write(pin_init::zeroed()) };
                }),
                name,
                gone: Atomic::new(false),
                calls <- new_calls(),
                device: UnsafeCell::new(ManuallyDrop::new(device)),
            }? Error),
            GFP_KERNEL,
        )?;

        let misc = node.misc.get();
        // SAFETY: Nobody else knows `misc` yet. The name lives in the same allocation, pinned, and
        // is not changed.
        unsafe {
            (*misc).minor = bindings::MISC_DYNAMIC_MINOR as c_int;
            (*misc).name = node.name.as_char_ptr();
            (*misc).fops = Vtable::<D>::get();
            (*misc).mode = 0o600;
        }
        // SAFETY: `misc` is initialised, and stays in memory until it is deregistered, since the
        // registration holds a reference to the node.
        if let Err(error) = to_result(unsafe { bindings::misc_register(misc) }) {
            // SAFETY: Nobody else knows the node, which ends here.
            drop(unsafe { Self::take(&node) });
            return Err(error);
        }
        // INVARIANT: It was registered just now.
        Ok(Self { node })
    }

    /// Returns the device.
    pub fn device(&self) -> &D {
        // SAFETY: It is there by the type invariant, and stays as long as `self` is borrowed.
        unsafe { &*self.node.device.get() }
    }

    /// Removes the device and gives it back; see the text of the module.
    ///
    /// Waits for the calls that run, so whoever makes them wait has to end that first.
    pub fn unregister(self) -> D {
        let mut this = ManuallyDrop::new(self);
        // SAFETY: `this` is never dropped, so that it ends once.
        let device = unsafe { this.end() };
        // SAFETY: As above; the reference moves out of `this`, which is not used again.
        drop(unsafe { core::ptr::read(&this.node) });
        device
    }

    /// Ends the registration and takes the device out.
    ///
    /// # Safety
    ///
    /// Called once, and `self` is not used afterwards but for its reference to the node.
    unsafe fn end(&mut self) -> D {
        // SAFETY: It is registered by the type invariant.
        unsafe { bindings::misc_deregister(self.node.misc.get()) };
        self.node.gone.store(true, Release);
        self.node.calls.synchronize();
        // SAFETY: A call that begins now finds it gone, those that ran have ended, and by this
        // function's contract it was not taken before.
        unsafe { Self::take(&self.node) }
    }

    /// Takes the device out of `node`.
    ///
    /// # Safety
    ///
    /// Called once for a node, and nobody uses its device any more.
    unsafe fn take(node: &Node<D>) -> D {
        // SAFETY: By this function's contract.
        unsafe { ManuallyDrop::take(&mut *node.device.get()) }
    }
}

impl<D: CharDevice> Drop for Registration<D> {
    fn drop(&mut self) {
        // SAFETY: `self` is being dropped.
        drop(unsafe { self.end() });
    }
}

/// The file operations of a `D`.
struct Vtable<D>(PhantomData<D>);

impl<D: CharDevice> Vtable<D> {
    /// # Safety
    ///
    /// Called by the misc core for a device that [`Registration::new`] registered.
    unsafe extern "C" fn open(inode: *mut bindings::inode, file: *mut bindings::file) -> c_int {
        from_result(|| {
            // SAFETY: Both are those of the file being opened, by this function's contract.
            to_result(unsafe { bindings::generic_file_open(inode, file) })?;
            // SAFETY: The file is being opened, so that nobody else uses its private data.
            let misc = unsafe { (*file).private_data }.cast::<bindings::miscdevice>();
            // SAFETY: The misc core put a pointer to the miscdevice there, which is the field of a
            // node; `Opaque` is transparent.
            let node = unsafe { kernel::container_of!(Opaque::cast_from(misc), Node<D>, misc) };
            // SAFETY: The misc core holds its mutex, which deregistration takes: the registration
            // and its reference are there until this function returns.
            let node = Arc::from(unsafe { ArcBorrow::from_raw(node) });
            let value = node.call(|device| device.open())?;
            let open = KBox::new(Open { node, file: value }, GFP_KERNEL)?;
            // SAFETY: As above; all other operations find this pointer there.
            unsafe { (*file).private_data = KBox::into_raw(open).cast() };
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// Called by the VFS at the last close of a file that [`Self::open`] opened.
    unsafe extern "C" fn release(_inode: *mut bindings::inode, file: *mut bindings::file) -> c_int {
        // SAFETY: `open` put it there, and no operation runs on the file any more.
        drop(unsafe { KBox::from_raw((*file).private_data.cast::<Open<D>>()) });
        0
    }

    /// Returns what `open` left in `file`.
    ///
    /// # Safety
    ///
    /// `file` was opened by [`Self::open`] and is not released during `'a`.
    unsafe fn get_open<'a>(file: *mut bindings::file) -> &'a Open<D> {
        // SAFETY: `open` put a pointer to an `Open<D>` there, which lives until release.
        unsafe { &*(*file).private_data.cast::<Open<D>>() }
    }

    /// # Safety
    ///
    /// Called by the VFS with a file that [`Self::open`] opened.
    unsafe extern "C" fn llseek(
        file: *mut bindings::file,
        offset: bindings::loff_t,
        whence: c_int,
    ) -> bindings::loff_t {
        // SAFETY: By this function's contract.
        let open = unsafe { Self::get_open(file) };
        let seek = |device: &D| {
            let size = device.size().try_into().unwrap_or(bindings::loff_t::MAX);
            // SAFETY: The file is open.
            Ok(unsafe { bindings::fixed_size_llseek(file, offset, whence, size) })
        };
        match open.node.call(seek) {
            Ok(pos) => pos,
            Err(error) => error.to_errno().into(),
        }
    }

    /// # Safety
    ///
    /// Called by the VFS with a kiocb of a file that [`Self::open`] opened and a destination.
    unsafe extern "C" fn read_iter(
        kiocb: *mut bindings::kiocb,
        iter: *mut bindings::iov_iter,
    ) -> isize {
        // SAFETY: The VFS gives us the kiocb for the duration of the call.
        let kiocb = unsafe { &mut *kiocb };
        // SAFETY: By this function's contract.
        let open = unsafe { Self::get_open(kiocb.ki_filp) };
        // SAFETY: By this function's contract.
        let to = unsafe { IovIterDest::from_raw(iter) };
        from_result(|| {
            let pos = u64::try_from(kiocb.ki_pos).map_err(|_| EINVAL)?;
            let read = open.node.call(|device| device.read(&open.file, pos, to))?;
            kiocb.ki_pos += read as bindings::loff_t;
            Ok(read as isize)
        })
    }

    /// # Safety
    ///
    /// Called by the VFS with a kiocb of a file that [`Self::open`] opened and a source.
    unsafe extern "C" fn write_iter(
        kiocb: *mut bindings::kiocb,
        iter: *mut bindings::iov_iter,
    ) -> isize {
        // SAFETY: The VFS gives us the kiocb for the duration of the call.
        let kiocb = unsafe { &mut *kiocb };
        // SAFETY: By this function's contract.
        let open = unsafe { Self::get_open(kiocb.ki_filp) };
        // SAFETY: By this function's contract.
        let from = unsafe { IovIterSource::from_raw(iter) };
        let has = |flag: door::kfi_iocb| kiocb.ki_flags & flag as c_int != 0;
        let (append, dsync, sync) = (
            has(door::kfi_iocb::KFI_IOCB_APPEND),
            has(door::kfi_iocb::KFI_IOCB_DSYNC),
            has(door::kfi_iocb::KFI_IOCB_SYNC),
        );
        from_result(|| {
            open.node.call(|device| {
                if append {
                    kiocb.ki_pos = device.size().try_into()?;
                }
                let start = u64::try_from(kiocb.ki_pos).map_err(|_| EINVAL)?;
                let written = device.write(&open.file, start, from)?;
                kiocb.ki_pos += written as bindings::loff_t;
                if dsync && written > 0 {
                    let end = start + written as u64;
                    device.fsync(&open.file, Extent { start, end }, !sync)?;
                }
                Ok(written as isize)
            })
        })
    }

    /// # Safety
    ///
    /// Called by the VFS with a file that [`Self::open`] opened.
    unsafe extern "C" fn fsync(
        file: *mut bindings::file,
        start: bindings::loff_t,
        end: bindings::loff_t,
        datasync: c_int,
    ) -> c_int {
        // SAFETY: By this function's contract.
        let open = unsafe { Self::get_open(file) };
        from_result(|| {
            // The last byte is included, and may be the last that a file can have.
            let extent = Extent {
                start: start.try_into()?,
                end: u64::try_from(end)? + 1,
            };
            open.node
                .call(|device| device.fsync(&open.file, extent, datasync != 0))?;
            Ok(0)
        })
    }

    const VTABLE: bindings::file_operations = bindings::file_operations {
        owner: this_module::<D::OwnerModule>().as_ptr(),
        open: Some(Self::open),
        release: Some(Self::release),
        llseek: Some(Self::llseek),
        read_iter: Some(Self::read_iter),
        write_iter: Some(Self::write_iter),
        fsync: Some(Self::fsync),
        splice_read: Some(bindings::copy_splice_read),
        splice_write: Some(bindings::iter_file_splice_write),
        ..pin_init::zeroed()
    };

    const fn get() -> &'static bindings::file_operations {
        &Self::VTABLE
    }
}

#[kunit_tests(kfabric_chardev)]
mod tests {
    use super::*;

    struct Device(u64);

    #[vtable]
    impl CharDevice for Device {
        type File = ();

        fn open(&self) -> Result {
            Ok(())
        }

        fn size(&self) -> u64 {
            self.0
        }

        fn read(&self, _file: &(), _pos: u64, _to: &mut IovIterDest<'_>) -> Result<usize> {
            Ok(0)
        }

        fn write(&self, _file: &(), _pos: u64, _from: &mut IovIterSource<'_>) -> Result<usize> {
            Ok(0)
        }

        fn fsync(&self, _file: &(), _extent: Extent, _datasync: bool) -> Result {
            Ok(())
        }
    }

    #[test]
    fn device_comes_back_and_is_gone_for_open_files() -> Result {
        let registration = Registration::new(fmt!("kfi_kunit"), Device(7))?;
        // As an open file holds it.
        let node = registration.node.clone();
        assert_eq!(registration.device().0, 7);
        assert_eq!(node.call(|device| Ok(device.size())), Ok(7));
        assert_eq!(registration.unregister().0, 7);
        assert_eq!(node.call(|device| Ok(device.size())), Err(ENODEV));
        Ok(())
    }

    #[test]
    fn name_is_free_once_its_device_is_gone() -> Result {
        for size in 0..3 {
            let registration = Registration::new(fmt!("kfi_kunit"), Device(size))?;
            assert_eq!(registration.device().0, size);
        }
        Ok(())
    }
}
