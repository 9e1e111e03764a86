// SPDX-License-Identifier: GPL-2.0

//! Directories and files of debugfs.
//!
//! A file may be open for longer than what it shows, and than the module that had it made. So all
//! that an open file leads to is in kfabric.ko, which the file keeps loaded: the file operations
//! and what they call, down to [`Shown`]. `kernel::debugfs` makes them anew, without an owner, in
//! each module that a generic type of ours is instantiated in; and a `dyn` object's vtable would be
//! there as well.
//!
//! Without CONFIG_DEBUG_FS, and where debugfs refuses, a directory or file is not shown, which is no
//! error.

use super::bindings as door;
use crate::debugfs::Shown;
use kernel::bindings;
use kernel::error::to_result;
use kernel::ffi;
use kernel::prelude::*;
use kernel::seq_file::{seq_print, SeqFile};
use kernel::sync::Arc;

/// A directory or a file; dropped, it is removed.
///
/// # Invariants
///
/// `raw` is ours to remove, or an error pointer. What is in a directory holds it, so that it is
/// removed last.
struct Dentry {
    raw: *mut bindings::dentry,
    _parent: Option<Dir>,
}

// SAFETY: The functions that take a dentry of debugfs may be called by any thread, at any time
// until it is removed.
unsafe impl Send for Dentry {}
// SAFETY: As above.
unsafe impl Sync for Dentry {}

impl Drop for Dentry {
    fn drop(&mut self) {
        // SAFETY: Ours by the type invariant, and nobody uses it afterwards.
        unsafe { door::kfi_debugfs_remove(self.raw) };
    }
}

/// A directory. The last to hold it, be it by what is in it, removes it: process context, sleeps.
#[derive(Clone)]
pub(crate) struct Dir(Arc<Dentry>);

impl Dir {
    /// Makes a directory in `parent`, or at the top. Sleeps; process context. `ENOMEM`.
    pub(crate) fn new(name: &CStr, parent: Option<&Dir>) -> Result<Self> {
        let at = parent.map_or(core::ptr::null_mut(), |parent| parent.0.raw);
        // SAFETY: The name is copied; the parent is there, since the caller holds it.
        let raw = unsafe { door::kfi_debugfs_dir(name.as_char_ptr(), at) };
        // INVARIANT: It was made just now, or is an error, and holds its parent.
        let dentry = Dentry {
            raw,
            _parent: parent.cloned(),
        };
        Ok(Dir(Arc::new(dentry, GFP_KERNEL)?))
    }

    /// Gives it another name. Sleeps; process context. `EEXIST`, `ENOMEM`.
    pub(crate) fn rename(&self, name: &CStr) -> Result {
        // SAFETY: The name is copied; the directory is there, since `self` holds it.
        to_result(unsafe { door::kfi_debugfs_rename(self.0.raw, name.as_char_ptr()) })
    }

    /// Whether it is to be seen: debugfs did not refuse.
    #[cfg(CONFIG_KUNIT)]
    pub(crate) fn is_shown(&self) -> bool {
        kernel::error::from_err_ptr(self.0.raw).is_ok()
    }
}

/// A file. Dropping it waits for those that read it: process context, sleeps.
pub(crate) struct File {
    // Before what it shows, which is read until it is removed.
    _dentry: Dentry,
    _shown: Arc<Shown>,
}

impl File {
    /// Makes a file in `dir`. Sleeps; process context. `ENOMEM`.
    pub(crate) fn new(name: &CStr, dir: &Dir, shown: Shown) -> Result<Self> {
        let shown = Arc::new(shown, GFP_KERNEL)?;
        let object = core::ptr::from_ref::<Shown>(&shown).cast();
        // SAFETY: The name is copied; the directory is there, since the caller holds it; and
        // `object` is what the two functions below take, there until the file has been removed.
        let raw = unsafe {
            door::kfi_debugfs_file(name.as_char_ptr(), dir.0.raw, object, shown.is_writable())
        };
        Ok(File {
            // INVARIANT: It was made just now, or is an error, and holds its directory.
            _dentry: Dentry {
                raw,
                _parent: Some(dir.clone()),
            },
            _shown: shown,
        })
    }
}

/// Fills a file.
///
/// # Safety
///
/// `m` is the caller's alone; `shown` is what [`File::new`] handed over, and its file is not removed
/// before this returns.
#[no_mangle]
unsafe extern "C" fn kfi_debugfs_write(m: *mut bindings::seq_file, shown: *const ffi::c_void) {
    // SAFETY: By this function's contract.
    let m = unsafe { SeqFile::from_raw(m) };
    // SAFETY: By this function's contract the `File` is there, and with it what it shows.
    let shown = unsafe { &*shown.cast::<Shown>() };
    seq_print!(m, "{shown}");
}

/// Takes what somebody writes to a file; 0 or an errno.
///
/// # Safety
///
/// `text` has `len` bytes, which nobody changes meanwhile; `shown` as in [`kfi_debugfs_write`].
#[no_mangle]
unsafe extern "C" fn kfi_debugfs_set(
    shown: *const ffi::c_void,
    text: *const ffi::c_char,
    len: usize,
) -> ffi::c_int {
    // SAFETY: By this function's contract the `File` is there, and with it what it shows.
    let shown = unsafe { &*shown.cast::<Shown>() };
    // SAFETY: By this function's contract.
    let text = unsafe { core::slice::from_raw_parts(text.cast::<u8>(), len) };
    shown.set(text).map_or_else(Error::to_errno, |()| 0)
}

// The header declares what is defined here.
const _: unsafe extern "C" fn(*mut bindings::seq_file, *const ffi::c_void) = if true {
    kfi_debugfs_write
} else {
    door::kfi_debugfs_write
};
const _: unsafe extern "C" fn(*const ffi::c_void, *const ffi::c_char, usize) -> ffi::c_int = if true
{
    kfi_debugfs_set
} else {
    door::kfi_debugfs_set
};

#[kunit_tests(kfabric_sys_debugfs)]
mod tests {
    use super::*;
    use crate::debugfs::Unplugs;
    use crate::provider::faults::Faults;
    use crate::provider::registry::find;
    use crate::provider::testing::{Desk, Opened};

    #[test]
    fn directory_takes_no_name_that_is_taken() -> Result {
        let top = Dir::new(c"kfi_kunit", None)?;
        let (one, two) = (Dir::new(c"one", Some(&top))?, Dir::new(c"two", Some(&top))?);
        assert!(one.is_shown() && two.is_shown());
        assert_eq!(one.rename(c"two"), Err(EEXIST));
        drop(two);
        one.rename(c"two")?;
        assert!(Dir::new(c"one", Some(&top))?.is_shown());
        // One that debugfs refused has no name to change, nor have those in it.
        let refused = Dir::new(c"two", Some(&top))?;
        assert!(!refused.is_shown());
        assert!(!Dir::new(c"three", Some(&refused))?.is_shown());
        refused.rename(c"one")?;
        Ok(())
    }

    #[test]
    fn write_to_a_file_ends_as_what_it_shows_says() -> Result {
        let _opened = Opened::new()?;
        let entry = find(&Desk::info()?.provider)?.entry;
        let write = |shown: &Shown, text: &[u8]| {
            let shown = core::ptr::from_ref(shown).cast();
            // SAFETY: Both are there until the call returns, and nobody changes the text.
            unsafe { kfi_debugfs_set(shown, text.as_ptr().cast(), text.len()) }
        };
        let faults = Faults::new()?;
        let shown = Shown::Faults(faults.clone(), Unplugs::Provider(entry.clone()));
        assert!(shown.is_writable());
        assert_eq!(write(&shown, b"reorder 1\n"), 0);
        assert!(faults.are_on());
        assert_eq!(write(&shown, b"reorder 2\n"), EINVAL.to_errno());
        assert_eq!(write(&shown, b"\xff"), EINVAL.to_errno());
        let shown = Shown::Provider(entry);
        assert!(!shown.is_writable());
        assert_eq!(write(&shown, b"reorder 1\n"), EINVAL.to_errno());
        Ok(())
    }
}
