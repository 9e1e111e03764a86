// SPDX-License-Identifier: GPL-2.0

//! The replicas that the administrator makes, in `/sys/kernel/config/kfi_replica`.
//!
//! `mkdir NAME` makes one, `rmdir NAME` removes it, live or not. In its folder:
//!
//! - `provider`: the name of a fabric provider, `loopback` unless something else is written.
//! - `device`: the path of a persistent-memory block device in fsdax mode.
//! - `size`: how many bytes of it, a multiple of 4096; K, M and G may follow the number.
//! - `peer`: instead of a device, the card of memory that another host has opened.
//! - `export`: 1 for a device that only others have files in: no node here, but a card.
//! - `enable`: 1 brings the replica to life, 0 ends it.
//! - `node`: the path of its device, or an empty line.
//! - `card`: what another host has to know, or an empty line.
//! - `statistics`: what it did since it was enabled, a name and a number in each line.
//!
//! While it lives its settings can't change (`EBUSY`). Every refusal has a line in the log.

use super::{
    card::Card,
    link::{find, Link},
    replica::{Device, Replica},
    target::Target,
};
use kernel::{
    configfs::{self, configfs_attrs, AttributeOperations, GroupOperations},
    fmt, new_mutex,
    page::PAGE_SIZE,
    prelude::*,
    str::{BStr, CString, Formatter},
    sync::{Arc, Mutex},
};
use kfabric::prelude::*;

/// How many replicas there can be, and so the greatest number of `/dev/kfi_replicaN` plus one.
const REPLICAS: usize = 64;
/// What a size and a place are multiples of.
const GRAIN: u64 = 4096;
const PROVIDER_MAX: usize = 31;
const PATH_MAX: usize = 255;
/// So much of what is refused is shown.
const SHOWN: usize = 20;

/// What the administrator has set.
pub(crate) struct Settings {
    pub(crate) provider: CString,
    pub(crate) device: CString,
    pub(crate) size: u64,
    pub(crate) peer: Option<Card>,
    pub(crate) export: bool,
}

/// Which numbers are in use.
#[pin_data]
struct Numbers {
    #[pin]
    used: Mutex<u64>,
}

/// A number in use; dropping it frees it.
struct Number {
    numbers: Arc<Numbers>,
    value: u32,
}

impl Number {
    fn new(numbers: &Arc<Numbers>) -> Result<Self> {
        let mut used = numbers.used.lock();
        let value = used.trailing_ones();
        if value as usize >= REPLICAS {
            return Err(ENOSPC);
        }
        *used |= 1 << value;
        Ok(Self {
            numbers: numbers.clone(),
            value,
        })
    }
}

impl Drop for Number {
    fn drop(&mut self) {
        *self.numbers.used.lock() &= !(1 << self.value);
    }
}

/// A replica that lives, or memory for one elsewhere.
enum Live {
    File(File),
    Export(Target),
}

/// A file.
struct File {
    registration: CharDeviceRegistration<Device>,
    number: Number,
}

impl Live {
    // Nor are the others that open something made part of their callers: the stack is small.
    #[inline(never)]
    fn new(label: &CStr, settings: &Settings, numbers: &Arc<Numbers>) -> Result<Self> {
        if settings.export {
            let info = find(label, &settings.provider)?;
            return Ok(Live::Export(Target::open(label, settings, &info)?));
        }
        Ok(Live::File(File::new(settings, numbers)?))
    }

    fn file(&self) -> Option<&File> {
        match self {
            Live::File(file) => Some(file),
            Live::Export(_) => None,
        }
    }

    fn end(self, label: &CStr) {
        match self {
            Live::File(file) => file.end(),
            Live::Export(target) => target.close(label),
        }
    }
}

impl File {
    #[inline(never)]
    fn new(settings: &Settings, numbers: &Arc<Numbers>) -> Result<Self> {
        let number = Number::new(numbers)?;
        let name = CString::try_from_fmt(fmt!("kfi_replica{}", number.value))?;
        let link = Link::open(&name, settings)?;
        let replica = Replica::new(name, link, settings.size)?;
        let registration =
            CharDeviceRegistration::new(fmt!("kfi_replica{}", number.value), Device(replica))?;
        Ok(Self {
            registration,
            number,
        })
    }

    /// Ends it: whoever waits is sent away, files that are open fail, what is under way ends.
    fn end(self) {
        self.registration.device().0.stop();
        self.registration.unregister().0.close();
        drop(self.number);
    }
}

/// `/sys/kernel/config/kfi_replica`.
#[pin_data]
pub(crate) struct Root {
    numbers: Arc<Numbers>,
}

impl Root {
    /// Registers the folder.
    pub(crate) fn register() -> impl PinInit<configfs::Subsystem<Self>, Error> {
        let item_type = configfs_attrs! {
            container: configfs::Subsystem<Root>,
            data: Root,
            child: Item,
            attributes: [],
        };
        configfs::Subsystem::new(
            c"kfi_replica",
            item_type,
            try_pin_init!(Root {
                numbers: Arc::pin_init(
                    pin_init!(Numbers { used <- new_mutex!(0, "kfi_replica::numbers") }),
                    GFP_KERNEL,
                )?,
            }),
        )
    }
}

#[vtable]
impl GroupOperations for Root {
    type Child = Item;

    fn make_group(&self, name: &CStr) -> Result<impl PinInit<configfs::Group<Item>, Error>> {
        let item_type = configfs_attrs! {
            container: configfs::Group<Item>,
            data: Item,
            attributes: [
                provider: 0,
                device: 1,
                size: 2,
                enable: 3,
                node: 4,
                statistics: 5,
                peer: 6,
                export: 7,
                card: 8,
            ],
        };
        let numbers = self.numbers.clone();
        let label: CString = name.try_into()?;
        let group_name: CString = name.try_into()?;
        let inner = Inner {
            label: name.try_into()?,
            settings: Settings {
                provider: CString::try_from(c"loopback")?,
                device: CString::try_from(c"")?,
                size: 0,
                peer: None,
                export: false,
            },
            live: None,
        };
        Ok(configfs::Group::new(
            group_name,
            item_type,
            try_pin_init!(Item {
                label,
                numbers,
                inner <- new_mutex!(inner, "kfi_replica::item"),
            }),
        ))
    }
}

struct Inner {
    label: CString,
    settings: Settings,
    live: Option<Live>,
}

impl Inner {
    /// Ends the replica; whether there was one.
    fn end(&mut self) -> bool {
        let live = self.live.take();
        let was = live.is_some();
        if let Some(live) = live {
            live.end(&self.label);
        }
        was
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.end();
    }
}

/// One replica's folder.
#[pin_data]
pub(crate) struct Item {
    label: CString,
    numbers: Arc<Numbers>,
    #[pin]
    inner: Mutex<Inner>,
}

impl Item {
    /// Changes a setting, unless the replica lives.
    fn set(&self, what: &str, change: impl FnOnce(&mut Settings) -> Result) -> Result {
        let mut inner = self.inner.lock();
        if inner.live.is_some() {
            pr_err!(
                "{}: {what} can't change while it is enabled\n",
                &*self.label
            );
            return Err(EBUSY);
        }
        change(&mut inner.settings)
    }

    /// Refuses a setting.
    ///
    /// A card may have been written, here or to a setting that takes none, and holds a key: so only the beginning is
    /// shown, which is of its name.
    fn refuse<T>(&self, what: &str, value: &[u8], why: &str, error: Error) -> Result<T> {
        let shown = &value[..value.len().min(SHOWN)];
        let more = if shown.len() < value.len() { "..." } else { "" };
        pr_err!(
            "{}: {what} \"{}\"{more}: {why}\n",
            &*self.label,
            BStr::from_bytes(shown)
        );
        Err(error)
    }

    fn enable(&self) -> Result {
        let mut inner = self.inner.lock();
        if inner.live.is_some() {
            pr_err!("{}: it is enabled already\n", &*self.label);
            return Err(EBUSY);
        }
        let settings = &inner.settings;
        if settings.size == 0 || (settings.device.is_empty() && settings.peer.is_none()) {
            let what = if settings.size == 0 { "size" } else { "device" };
            pr_err!("{}: no {what} is set\n", &*self.label);
            return Err(EINVAL);
        }
        if settings.peer.is_some() && (settings.export || !settings.device.is_empty()) {
            pr_err!("{}: the memory is a peer's, or here\n", &*self.label);
            return Err(EINVAL);
        }
        let live = Live::new(&self.label, settings, &self.numbers)
            .inspect_err(|error| pr_err!("{}: not enabled: {error:?}\n", &*self.label))?;
        let device = match settings.peer {
            Some(_) => c"a peer",
            None => &*settings.device,
        };
        let (size, provider) = (settings.size, &*settings.provider);
        match live.file() {
            Some(file) => {
                let number = file.number.value;
                pr_info!(
                    "{}: /dev/kfi_replica{number}, {size} bytes of {device} over {provider}\n",
                    &*self.label
                );
            }
            None => {
                let label = &*self.label;
                pr_info!("{label}: {size} bytes of {device} for peers over {provider}\n");
            }
        }
        inner.live = Some(live);
        Ok(())
    }

    fn disable(&self) {
        // Under the lock, so that whoever enables it next finds the device free.
        if self.inner.lock().end() {
            pr_info!("{}: disabled\n", &*self.label);
        }
    }
}

/// Writes what an attribute shows.
fn print(page: &mut [u8; PAGE_SIZE], text: fmt::Arguments<'_>) -> Result<usize> {
    let mut out = Formatter::new(page);
    fmt::Write::write_fmt(&mut out, text).map_err(|_| EOVERFLOW)?;
    Ok(out.bytes_written())
}

/// A number of bytes, with K, M or G; `None` if it is none.
fn parse_size(text: &[u8]) -> Option<u64> {
    let (digits, shift) = match text.split_last()? {
        (b'K' | b'k', digits) => (digits, 10),
        (b'M' | b'm', digits) => (digits, 20),
        (b'G' | b'g', digits) => (digits, 30),
        _ => (text, 0),
    };
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number: u64 = core::str::from_utf8(digits).ok()?.parse().ok()?;
    number.checked_mul(1 << shift)
}

/// A setting's text as a C string, without the white space around it.
fn text(page: &[u8]) -> &[u8] {
    page.trim_ascii()
}

fn c_string(text: &[u8]) -> Result<CString> {
    CString::try_from_fmt(fmt!("{}", core::str::from_utf8(text).map_err(|_| EINVAL)?))
}

#[vtable]
impl AttributeOperations<0> for Item {
    type Data = Item;

    fn show(item: &Item, page: &mut [u8; PAGE_SIZE]) -> Result<usize> {
        print(page, fmt!("{}\n", &*item.inner.lock().settings.provider))
    }

    fn store(item: &Item, page: &[u8]) -> Result {
        let name = text(page);
        let good = |c: &u8| c.is_ascii_alphanumeric() || b"_-".contains(c);
        if name.is_empty() || name.len() > PROVIDER_MAX || !name.iter().all(good) {
            return item.refuse("provider", name, "that is no name of a provider", EINVAL);
        }
        item.set("provider", |settings| {
            settings.provider = c_string(name)?;
            Ok(())
        })
    }
}

#[vtable]
impl AttributeOperations<1> for Item {
    type Data = Item;

    fn show(item: &Item, page: &mut [u8; PAGE_SIZE]) -> Result<usize> {
        print(page, fmt!("{}\n", &*item.inner.lock().settings.device))
    }

    fn store(item: &Item, page: &[u8]) -> Result {
        let path = text(page);
        let good = |c: &u8| c.is_ascii_graphic();
        if !path.starts_with(b"/") || path.len() > PATH_MAX || !path.iter().all(good) {
            return item.refuse("device", path, "that is no absolute path", EINVAL);
        }
        item.set("device", |settings| {
            settings.device = c_string(path)?;
            Ok(())
        })
    }
}

#[vtable]
impl AttributeOperations<2> for Item {
    type Data = Item;

    fn show(item: &Item, page: &mut [u8; PAGE_SIZE]) -> Result<usize> {
        print(page, fmt!("{}\n", item.inner.lock().settings.size))
    }

    fn store(item: &Item, page: &[u8]) -> Result {
        let written = text(page);
        let Some(size) = parse_size(written) else {
            return item.refuse("size", written, "that is no number of bytes", EINVAL);
        };
        if size == 0 {
            return item.refuse("size", written, "there must be some bytes", EINVAL);
        }
        if size % GRAIN != 0 {
            return item.refuse("size", written, "it is no multiple of 4096", EINVAL);
        }
        if i64::try_from(size).is_err() {
            return item.refuse("size", written, "no file can be that large", EFBIG);
        }
        item.set("size", |settings| {
            settings.size = size;
            Ok(())
        })
    }
}

#[vtable]
impl AttributeOperations<3> for Item {
    type Data = Item;

    fn show(item: &Item, page: &mut [u8; PAGE_SIZE]) -> Result<usize> {
        print(
            page,
            fmt!("{}\n", u8::from(item.inner.lock().live.is_some())),
        )
    }

    fn store(item: &Item, page: &[u8]) -> Result {
        match text(page) {
            b"1" => item.enable(),
            b"0" => {
                item.disable();
                Ok(())
            }
            other => item.refuse("enable", other, "it is 0 or 1", EINVAL),
        }
    }
}

#[vtable]
impl AttributeOperations<4> for Item {
    type Data = Item;

    fn show(item: &Item, page: &mut [u8; PAGE_SIZE]) -> Result<usize> {
        match item.inner.lock().live.as_ref().and_then(Live::file) {
            Some(file) => print(page, fmt!("/dev/kfi_replica{}\n", file.number.value)),
            None => print(page, fmt!("\n")),
        }
    }
}

#[vtable]
impl AttributeOperations<5> for Item {
    type Data = Item;

    fn show(item: &Item, page: &mut [u8; PAGE_SIZE]) -> Result<usize> {
        let inner = item.inner.lock();
        let file = inner.live.as_ref().and_then(Live::file);
        let s = file.map(|file| file.registration.device().0.statistics());
        let s = s.unwrap_or_default();
        print(
            page,
            fmt!(
                "writes {}\nwritten {}\nreads {}\nread {}\ncommits {}\nerrors {}\n",
                s.writes,
                s.written,
                s.reads,
                s.read,
                s.commits,
                s.errors,
            ),
        )
    }
}

#[vtable]
impl AttributeOperations<6> for Item {
    type Data = Item;

    fn show(item: &Item, page: &mut [u8; PAGE_SIZE]) -> Result<usize> {
        match &item.inner.lock().settings.peer {
            Some(card) => print(page, fmt!("{card}\n")),
            None => print(page, fmt!("\n")),
        }
    }

    fn store(item: &Item, page: &[u8]) -> Result {
        let line = text(page);
        let card = match line {
            b"" => None,
            _ => match Card::parse(line) {
                Ok(card) => Some(card),
                Err(error) => return item.refuse("peer", line, "that is no card", error),
            },
        };
        item.set("peer", |settings| {
            settings.peer = card;
            Ok(())
        })
    }
}

#[vtable]
impl AttributeOperations<7> for Item {
    type Data = Item;

    fn show(item: &Item, page: &mut [u8; PAGE_SIZE]) -> Result<usize> {
        let export = item.inner.lock().settings.export;
        print(page, fmt!("{}\n", u8::from(export)))
    }

    fn store(item: &Item, page: &[u8]) -> Result {
        let export = match text(page) {
            b"1" => true,
            b"0" => false,
            other => return item.refuse("export", other, "it is 0 or 1", EINVAL),
        };
        item.set("export", |settings| {
            settings.export = export;
            Ok(())
        })
    }
}

#[vtable]
impl AttributeOperations<8> for Item {
    type Data = Item;

    fn show(item: &Item, page: &mut [u8; PAGE_SIZE]) -> Result<usize> {
        match &item.inner.lock().live {
            Some(Live::Export(target)) => print(page, fmt!("{}\n", target.card()?)),
            _ => print(page, fmt!("\n")),
        }
    }
}
