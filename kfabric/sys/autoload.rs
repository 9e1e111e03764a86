// SPDX-License-Identifier: GPL-2.0

//! Modules that are loaded when somebody asks for a provider by name.
//!
//! A provider's module has the alias `kfi-provider-NAME`. Source: Documentation of
//! `request_module()` in kernel/module/kmod.c.

use kernel::{bindings, prelude::*, str::CString};

/// Loads the module of the provider called `name`, and waits for it.
///
/// Sleeps; process context, and not from inside a module's init. Success does not mean that there
/// is such a provider now: look with [`getinfo`](crate::info::getinfo).
///
/// # Errors
/// - `EINVAL`: a provider's name has letters, digits, `_` and `-` only.
/// - `ENOMEM`.
pub fn load_provider(name: &str) -> Result {
    let good = |c: u8| c.is_ascii_alphanumeric() || c == b'_' || c == b'-';
    if name.is_empty() || !name.bytes().all(good) {
        return Err(EINVAL);
    }
    let alias = CString::try_from_fmt(fmt!("kfi-provider-{name}"))?;
    // SAFETY: The alias is a C string, of the very kind that the format asks for.
    let _ = unsafe { bindings::__request_module(true, c"%s".as_char_ptr(), alias.as_char_ptr()) };
    Ok(())
}

#[kunit_tests(kfabric_autoload)]
mod tests {
    use super::*;

    #[test]
    fn name_has_nothing_that_a_module_name_has_not() {
        for name in [
            "", " ", "a b", "a/b", "../a", "a.ko", "a%s", "a\n", "\u{e4}",
        ] {
            assert_eq!(load_provider(name), Err(EINVAL));
        }
        // None is there, which is no error.
        assert_eq!(load_provider("kunit-No_1"), Ok(()));
    }
}
