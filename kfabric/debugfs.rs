// SPDX-License-Identifier: GPL-2.0

//! What objects count, for the administrator: `/sys/kernel/debug/kfabric`.
//!
//! ```text
//! PROVIDER/state                       its fabrics, whether it is gone
//! PROVIDER/faults                      what domains that are opened later begin with; writable
//! PROVIDER/fabric-N                    the domains of a fabric
//! PROVIDER/domain-N/state              whether the domain is gone
//! PROVIDER/domain-N/objects            what is open in the domain
//! PROVIDER/domain-N/target             what peers tried on its regions
//! PROVIDER/domain-N/peers              what became of its peers
//! PROVIDER/domain-N/faults             what it injects; writable
//! PROVIDER/domain-N/region-N           a memory region
//! PROVIDER/domain-N/cq-N               a completion queue
//! PROVIDER/domain-N/cntr-N             a counter
//! PROVIDER/domain-N/eq-N               an event queue
//! PROVIDER/domain-N/av-N               an address vector
//! PROVIDER/domain-N/endpoint-N/{tx,rx} the directions of an endpoint
//! PROVIDER/domain-N/passive-N          a passive endpoint
//! PROVIDER.gone-N/...                  what was opened of a provider that has ended
//! ```
//!
//! A line is a name and a number. A file belongs to the handle that the consumer holds: it appears
//! when the object is opened and goes when it is closed, which waits for those that are reading
//! it; who has it open reads `EIO` from then on. No key is shown, only a region's index and
//! generation.
//!
//! Without CONFIG_DEBUG_FS nothing is shown, and nothing fails.

use crate::av;
use crate::cm;
use crate::cntr;
use crate::cq::Queue;
use crate::domain;
use crate::fabric;
use crate::info::Label;
use crate::mr;
use crate::op::Origin;
use crate::provider::faults::Faults;
use crate::provider::registry::Entry;
use crate::sys::global;
use kernel::fmt;
use kernel::prelude::*;
use kernel::str::CString;
use kernel::sync::atomic::{Atomic, Relaxed};
use kernel::sync::Arc;

pub(crate) use crate::sys::debugfs::{Dir, File};

/// Keeps the top directory; dropped, it goes, once everything in it has gone.
pub(crate) struct Root(());

impl Root {
    /// Makes the top directory. Process context, once. `ENOMEM`.
    pub(crate) fn new() -> Result<Self> {
        *global::debugfs() = Some(Dir::new(c"kfabric", None)?);
        Ok(Root(()))
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let dir = global::debugfs().take();
        drop(dir);
    }
}

/// A provider's directory. Sleeps. `ENOMEM`.
pub(crate) fn provider(name: &Label) -> Result<Dir> {
    let name = CString::try_from_fmt(fmt!("{name}"))?;
    let root = global::debugfs();
    Dir::new(&name, Some(root.as_ref().ok_or(ENODEV)?))
}

/// Takes the name from the directory of a provider that has ended, for one that may come.
///
/// It stays as `NAME.gone-N`, as long as something is in it. Sleeps.
pub(crate) fn retire(dir: &Dir, name: &Label) {
    static NEXT: Atomic<u64> = Atomic::new(1);

    let number = NEXT.fetch_add(1, Relaxed);
    let renamed =
        CString::try_from_fmt(fmt!("{name}.gone-{number}")).and_then(|to| dir.rename(&to));
    if let Err(error) = renamed {
        pr_warn!("{name}: its directory in debugfs keeps the name: {error:?}\n");
    }
}

/// A directory in another. Sleeps. `ENOMEM`.
pub(crate) fn dir(parent: &Dir, name: fmt::Arguments<'_>) -> Result<Dir> {
    Dir::new(&CString::try_from_fmt(name)?, Some(parent))
}

/// What stands behind a file: one variant for each kind of file.
///
/// Not a trait: an object's vtable is made where it is first used as one, which for much of this is
/// in a consumer's module, and an open file would lead there.
pub(crate) enum Shown {
    /// `state`.
    Provider(Arc<Entry>),
    /// `fabric-N`.
    Fabric(Arc<fabric::Core>),
    /// `state` of a domain.
    Domain(Arc<domain::Core>),
    /// `objects`.
    Objects(Arc<domain::Core>),
    /// `target`.
    Target(Arc<domain::Core>),
    /// `peers`.
    Peers(Arc<domain::Core>),
    /// `region-N`.
    Region(Arc<mr::Sheet>),
    /// `cq-N`, `eq-N`.
    Queue(Arc<Queue>),
    /// `cntr-N`.
    Counter(Arc<cntr::Core>),
    /// `av-N`.
    Addresses(Arc<av::Table>),
    /// `tx`, `rx`.
    Direction(Arc<Origin>),
    /// `faults`, and what ends if that is written.
    Faults(Arc<Faults>, Unplugs),
    /// `passive-N`.
    Listener(Arc<cm::Listener>),
}

/// What `unplug` ends, in a file `faults`.
pub(crate) enum Unplugs {
    Provider(Arc<Entry>),
    Domain(Arc<domain::Core>),
}

impl Unplugs {
    /// The name of the provider.
    fn label(&self) -> &Label {
        match self {
            Unplugs::Provider(entry) => &entry.label,
            Unplugs::Domain(domain) => &domain.entry().label,
        }
    }

    /// Has a work item end it. May sleep. `ENODEV`: it has ended. `ENOMEM`.
    fn unplug_soon(&self) -> Result {
        match self {
            Unplugs::Provider(entry) => entry.unplug_soon(),
            Unplugs::Domain(domain) => domain.entry().unplug_domain_soon(domain.life()),
        }
    }
}

impl Shown {
    /// Whether it can be written.
    pub(crate) fn is_writable(&self) -> bool {
        matches!(self, Shown::Faults(..))
    }

    /// Takes what is written. May sleep. `EINVAL`, and others that its kind of file has.
    pub(crate) fn set(&self, text: &[u8]) -> Result {
        let Shown::Faults(faults, unplugs) = self else {
            return Err(EINVAL);
        };
        if faults.set(unplugs.label(), text)? {
            // Not here: removal of the file waits for this, and others may wait for that.
            unplugs.unplug_soon()?;
        }
        Ok(())
    }
}

impl fmt::Display for Shown {
    /// May sleep.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Shown::Provider(entry) => entry.show(f),
            Shown::Fabric(fabric) => fabric.show(f),
            Shown::Domain(domain) => domain.show(f),
            Shown::Objects(domain) => domain.show_objects(f),
            Shown::Target(domain) => domain.target_stats().show(f),
            Shown::Peers(domain) => domain.peer_stats().show(f),
            Shown::Region(sheet) => sheet.show(f),
            Shown::Queue(queue) => queue.show(f),
            Shown::Counter(cntr) => cntr.show(f),
            Shown::Addresses(table) => table.show(f),
            Shown::Direction(origin) => origin.show(f),
            Shown::Faults(faults, _) => faults.show(f),
            Shown::Listener(listener) => listener.show(f),
        }
    }
}

/// A file, removed when it is dropped. Sleeps. `ENOMEM`.
pub(crate) fn file(dir: &Dir, name: fmt::Arguments<'_>, shown: Shown) -> Result<File> {
    File::new(&CString::try_from_fmt(name)?, dir, shown)
}

/// The file `faults`, where there are any. Sleeps. `ENOMEM`.
pub(crate) fn faults(
    dir: &Dir,
    faults: Option<Arc<Faults>>,
    unplugs: Unplugs,
) -> Result<Option<File>> {
    faults
        .map(|faults| file(dir, fmt!("faults"), Shown::Faults(faults, unplugs)))
        .transpose()
}

/// Writes lines of a name and a number.
pub(crate) fn rows(f: &mut fmt::Formatter<'_>, rows: &[(&str, u64)]) -> fmt::Result {
    rows.iter()
        .try_for_each(|(name, number)| writeln!(f, "{name} {number}"))
}

#[kunit_tests(kfabric_debugfs)]
mod tests {
    use super::*;

    #[test]
    fn a_successor_is_shown_while_the_gone_one_is_in_use() -> Result {
        let name = Label::new("kunit")?;
        let first = provider(&name)?;
        let in_use = dir(&first, fmt!("domain"))?;
        assert!(first.is_shown() && in_use.is_shown());
        // Two of one name are refused by debugfs, without an error.
        assert!(!provider(&name)?.is_shown());
        retire(&first, &name);
        drop(first);
        let second = provider(&name)?;
        assert!(second.is_shown());
        retire(&second, &name);
        assert!(provider(&name)?.is_shown());
        Ok(())
    }

    #[test]
    fn a_directory_stays_for_what_is_in_it() -> Result {
        let name = Label::new("kunit")?;
        let inner = dir(&provider(&name)?, fmt!("inner"))?;
        assert!(!provider(&name)?.is_shown());
        drop(inner);
        assert!(provider(&name)?.is_shown());
        Ok(())
    }
}
