// SPDX-License-Identifier: GPL-2.0

//! References to modules, so that none is unloaded while its code is in use.

use super::global::REGISTRY;
use kernel::bindings;
use kernel::prelude::*;
use kernel::sync::GlobalGuard;

/// A module that may be referred to.
#[derive(Clone, Copy)]
pub(crate) struct Owner(*mut bindings::module);

// SAFETY: The pointer is only handed to the module loader, which locks.
unsafe impl Send for Owner {}
// SAFETY: As above.
unsafe impl Sync for Owner {}

impl Owner {
    pub(crate) fn new(module: &'static ThisModule) -> Self {
        Owner(module.as_ptr())
    }

    /// A reference, unless the module is on its way out.
    ///
    /// The owner of an entry of the registry, whose lock shows that the entry's module is there.
    pub(crate) fn get(self, _registry: &GlobalGuard<REGISTRY>) -> Result<Reference> {
        // SAFETY: The module's exit takes its entry out under this lock, so it is loaded still; or
        // the pointer is null, for built-in code.
        if unsafe { bindings::try_module_get(self.0) } {
            Ok(Reference(self))
        } else {
            Err(ENODEV)
        }
    }
}

/// A counted reference to a module.
pub(crate) struct Reference(Owner);

impl Drop for Reference {
    fn drop(&mut self) {
        // SAFETY: The reference was taken by `Owner::get`.
        unsafe { bindings::module_put(self.0 .0) };
    }
}

#[kunit_tests(kfabric_module)]
mod tests {
    use super::*;
    use crate::sys::global;
    use kernel::module::this_module;

    #[test]
    fn module_is_held_as_often_as_it_is_referred_to() -> Result {
        let owner = Owner::new(this_module::<crate::Core>());
        // SAFETY: It is the module that this is in.
        let count = || unsafe { bindings::module_refcount(owner.0) };
        let registry = global::registry();
        let before = count();
        let (one, two) = (owner.get(&registry)?, owner.get(&registry)?);
        assert_eq!(count(), before + 2);
        drop(one);
        assert_eq!(count(), before + 1);
        drop(two);
        assert_eq!(count(), before);
        Ok(())
    }
}
