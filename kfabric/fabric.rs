// SPDX-License-Identifier: GPL-2.0

//! Fabrics: the use of one provider.
//!
//! Source: fi_fabric(3).

use crate::debugfs::{self, Shown};
use crate::domain::Domain;
use crate::info::{Info, Label};
use crate::provider::registry::{self, Entry};
use crate::stats::Count;
use crate::sys::module::Reference;
use kernel::fmt;
use kernel::prelude::*;
use kernel::sync::atomic::{Acquire, Atomic, Relaxed, Release};
use kernel::sync::Arc;

static NEXT_ID: Atomic<u64> = Atomic::new(1);

/// What a fabric shares with its domains.
pub(crate) struct Core {
    entry: Arc<Entry>,
    label: Label,
    /// The open domains, and those that are closed and of which something is open.
    users: Atomic<i32>,
    /// Domains that were opened.
    opened: Count,
    /// Domains that could not be.
    refused: Count,
    // Last: while anything of the provider is left, so is its module.
    _module: Reference,
}

impl Core {
    pub(crate) fn entry(&self) -> &Arc<Entry> {
        &self.entry
    }

    pub(crate) fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = [
            ("domains", self.users.load(Relaxed).max(0) as u64),
            ("opened", self.opened.value()),
            ("refused", self.refused.value()),
        ];
        debugfs::rows(f, &rows)
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        self.entry.fabrics.fetch_sub(1, Relaxed);
    }
}

/// The hold on a fabric by a domain, or by what is left in one.
pub(crate) struct Child(Arc<Core>);

impl Child {
    fn new(core: &Arc<Core>) -> Self {
        core.users.add(1, Relaxed);
        Child(core.clone())
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.0
    }
}

impl core::ops::Deref for Child {
    type Target = Core;

    fn deref(&self) -> &Core {
        &self.0
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.0.users.fetch_sub(1, Release);
    }
}

/// An open fabric.
pub struct Fabric {
    _file: debugfs::File,
    core: Arc<Core>,
}

impl Fabric {
    /// Opens the fabric of `info`. Sleeps; process context.
    ///
    /// # Errors
    /// - `ENODEV`: its provider is gone, or offers no such fabric.
    /// - `ENOEXEC`: the consumer was built against another core; build it again.
    /// - `ENOMEM`.
    // Compiled into the consumer: there `IDENTITY` is that of the core that it was built against.
    #[inline(always)]
    pub fn open(info: &Info) -> Result<Self> {
        Self::open_for(registry::IDENTITY, info)
    }

    /// Opens the fabric for a consumer that was built against the core of that identity.
    #[doc(hidden)]
    #[inline(never)]
    pub fn open_for(identity: &str, info: &Info) -> Result<Self> {
        registry::check("consumer", registry::ABI, identity)?;
        let found = registry::find(&info.provider)?;
        found
            .entry
            .offer(info.net, |offer| offer.fabric == info.fabric)?;
        let registry::Found { entry, module } = found;
        entry.fabrics.add(1, Relaxed);
        let core = Core {
            entry,
            label: info.fabric,
            users: Atomic::new(0),
            opened: Count::default(),
            refused: Count::default(),
            _module: module,
        };
        let core = Arc::new(core, GFP_KERNEL)?;
        let id = NEXT_ID.fetch_add(1, Relaxed);
        let shown = Shown::Fabric(core.clone());
        Ok(Fabric {
            _file: debugfs::file(&core.entry.dir()?, fmt!("fabric-{id}"), shown)?,
            core,
        })
    }

    /// Opens the domain of `info`. Sleeps; process context.
    ///
    /// # Errors
    /// - `ENODEV`: the provider is gone, or offers no such domain.
    /// - `EINVAL`: `info` is of another fabric.
    /// - `EADDRNOTAVAIL`: its source can't be had, or not any more.
    /// - `EADDRINUSE`: its source is taken, as a port at which somebody listens.
    /// - `ENOMEM`; others that the provider gives.
    pub fn domain(&self, info: &Info) -> Result<Domain> {
        let opened = self.open_domain(info);
        match opened {
            Ok(_) => self.core.opened.add(1),
            Err(_) => self.core.refused.add(1),
        }
        opened
    }

    fn open_domain(&self, info: &Info) -> Result<Domain> {
        self.core.entry.alive()?;
        if info.provider != self.core.entry.label || info.fabric != self.core.label {
            return Err(EINVAL);
        }
        Domain::open(Child::new(&self.core), info)
    }

    /// Whether `info` is one of it.
    pub(crate) fn is_of(&self, info: &Info) -> bool {
        self.core.label == info.fabric
    }

    /// Whether it is that provider's: not that of another of its name, before or after it.
    pub(crate) fn is_by(&self, entry: &Entry) -> bool {
        core::ptr::eq(&**self.core.entry(), entry)
    }

    /// Closes the fabric.
    ///
    /// # Errors
    /// - `EBUSY`, and the fabric again: domains are open.
    pub fn close(self) -> Result<(), (Error, Self)> {
        if self.core.users.load(Acquire) > 0 {
            return Err((EBUSY, self));
        }
        Ok(())
    }
}

#[kunit_tests(kfabric_fabric)]
mod tests {
    use super::*;
    use crate::domain::Class;
    use crate::provider::registry::unplug;
    use crate::provider::testing::{Desk, Opened};
    use kernel::str::CString;

    #[test]
    fn fabric_is_found_by_provider_and_name() -> Result {
        assert_eq!(Fabric::open(&Desk::info()?).err(), Some(ENODEV));
        let _opened = Opened::new()?;
        for (provider, fabric, expected) in [
            ("kunit", "fabric", None),
            ("kunit", "fabri", Some(ENODEV)),
            ("kunit", "domain", Some(ENODEV)),
            ("kuni", "fabric", Some(ENODEV)),
        ] {
            let info = Info {
                provider: Label::new(provider)?,
                fabric: Label::new(fabric)?,
                ..Desk::info()?
            };
            assert_eq!(Fabric::open(&info).err(), expected);
        }
        Ok(())
    }

    #[test]
    fn consumer_of_another_core_is_refused() -> Result {
        let opened = Opened::new()?;
        let info = Desk::info()?;
        assert!(Fabric::open_for(registry::IDENTITY, &info).is_ok());
        for identity in ["", "0123456789abcdef"] {
            assert_eq!(Fabric::open_for(identity, &info).err(), Some(ENOEXEC));
        }
        // Those that were refused, or closed, do not count.
        assert_eq!(opened.fabric.core.entry.fabrics.load(Relaxed), 1);
        Ok(())
    }

    #[test]
    fn domain_is_of_its_fabric() -> Result {
        let opened = Opened::new()?;
        let open = |provider, fabric, domain| -> Result<Option<Error>> {
            let info = Info {
                provider: Label::new(provider)?,
                fabric: Label::new(fabric)?,
                domain: Label::new(domain)?,
                ..Desk::info()?
            };
            Ok(opened.fabric.domain(&info).err())
        };
        assert_eq!(open("kunit", "fabric", "domain")?, None);
        assert_eq!(open("kuni", "fabric", "domain")?, Some(EINVAL));
        assert_eq!(open("kunit", "fabri", "domain")?, Some(EINVAL));
        assert_eq!(open("kunit", "fabric", "domai")?, Some(ENODEV));
        unplug("kunit")?;
        assert_eq!(open("kunit", "fabric", "domain")?, Some(ENODEV));
        // Those that were tried here; the first is the bench's own.
        let shown = CString::try_from_fmt(fmt!("{}", Shown::Fabric(opened.fabric.core.clone())))?;
        assert_eq!(shown.to_bytes(), b"domains 1\nopened 2\nrefused 4\n");
        Ok(())
    }

    #[test]
    fn fabric_closes_after_all_that_is_in_it() -> Result {
        let Opened {
            domain,
            fabric,
            registration: _registration,
            ..
        } = Opened::new()?;
        let child = domain.child(Class::Region)?;
        let busy = |fabric: Fabric| match fabric.close() {
            Err((EBUSY, fabric)) => Ok(fabric),
            _ => Err(EINVAL),
        };
        let fabric = busy(fabric)?;
        drop(domain);
        // What is in the domain is in the fabric.
        let fabric = busy(fabric)?;
        drop(child);
        assert!(fabric.close().is_ok());
        Ok(())
    }
}
