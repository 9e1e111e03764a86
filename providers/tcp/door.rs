// SPDX-License-Identifier: GPL-2.0

//! The door to the kernel's sockets: see door.c.
//!
//! Locks: who waits to be woken is kept under the socket's `sk_callback_lock`, which is held while they
//! are woken, too: so [`Wake::wake`] must take no lock under which a socket is called.

use core::cell::UnsafeCell;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::ptr::NonNull;
use kernel::bindings::iov_iter;
use kernel::error::{from_err_ptr, to_result};
use kernel::prelude::*;
use kernel::sync::Arc;
use kfabric::info::Namespace;
use kfabric::provider::link::{Hold, IovIterDest, IovIterSource, Wake};

/// `struct net`.
#[repr(C)]
struct RawNet {
    _opaque: [u8; 0],
}

/// `struct kfi_tcp_socket`.
#[repr(C)]
struct RawSocket {
    _opaque: [u8; 0],
}

/// `struct kfi_tcp_address`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct RawAddress {
    ip: [u8; 16],
    scope: u32,
    port: u16,
    version: u16,
}

type RawWake = unsafe extern "C" fn(*mut c_void);
type RawDrop = unsafe extern "C" fn(*mut c_void);

extern "C" {
    fn kfi_tcp_start(drop: RawDrop) -> c_int;
    fn kfi_tcp_stop();
    fn kfi_tcp_configured(addr: *mut RawAddress) -> c_int;
    fn kfi_tcp_net_find(cookie: u64) -> *mut RawNet;
    fn kfi_tcp_net_put(net: *mut RawNet);
    fn kfi_tcp_interface(net: *mut RawNet, name: *const c_char) -> u32;
    fn kfi_tcp_has(net: *mut RawNet, at: *const RawAddress) -> c_int;
    fn kfi_tcp_listen(
        net: *mut RawNet,
        at: *mut RawAddress,
        wake: RawWake,
        context: *mut c_void,
    ) -> *mut RawSocket;
    fn kfi_tcp_dial(
        net: *mut RawNet,
        from: *const RawAddress,
        to: *const RawAddress,
        wake: RawWake,
        context: *mut c_void,
    ) -> *mut RawSocket;
    fn kfi_tcp_accept(
        listener: *mut RawSocket,
        wake: RawWake,
        context: *mut c_void,
    ) -> *mut RawSocket;
    fn kfi_tcp_lock(socket: *mut RawSocket);
    fn kfi_tcp_unlock(socket: *mut RawSocket);
    fn kfi_tcp_state(socket: *mut RawSocket) -> c_int;
    fn kfi_tcp_send(socket: *mut RawSocket, from: *const iov_iter, more: bool) -> c_long;
    fn kfi_tcp_splice(
        socket: *mut RawSocket,
        from: *const iov_iter,
        more: bool,
        hold: *mut c_void,
    ) -> c_long;
    fn kfi_tcp_receive(socket: *mut RawSocket, into: *const iov_iter) -> c_long;
    fn kfi_tcp_close(socket: *mut RawSocket, gently: bool);
    fn kfi_tcp_free(socket: *mut RawSocket);
}

impl From<SocketAddr> for RawAddress {
    fn from(addr: SocketAddr) -> Self {
        let mut raw = RawAddress {
            port: addr.port(),
            ..RawAddress::default()
        };
        match addr {
            SocketAddr::V4(addr) => {
                raw.version = 4;
                raw.ip[..4].copy_from_slice(&addr.ip().octets());
            }
            SocketAddr::V6(addr) => {
                raw.version = 6;
                raw.ip = addr.ip().octets();
                raw.scope = addr.scope_id();
            }
        }
        raw
    }
}

impl From<RawAddress> for SocketAddr {
    fn from(raw: RawAddress) -> Self {
        let ip = Ipv6Addr::from(raw.ip);
        if raw.version == 4 {
            let [a, b, c, d, ..] = raw.ip;
            return SocketAddr::new(IpAddr::V4(Ipv4Addr::new(a, b, c, d)), raw.port);
        }
        let mut addr = SocketAddr::new(IpAddr::V6(ip), raw.port);
        if let SocketAddr::V6(addr) = &mut addr {
            addr.set_scope_id(raw.scope);
        }
        addr
    }
}

/// Where to listen, by the module's parameters; port 0: any. Process context.
///
/// # Errors
/// `EINVAL`: the parameter is no IP address; a line in the log says so.
pub(crate) fn configured() -> Result<SocketAddr> {
    let mut raw = RawAddress::default();
    // SAFETY: It is a place for the result.
    to_result(unsafe { kfi_tcp_configured(&mut raw) })?;
    Ok(raw.into())
}

/// What lets sockets go that were closed gently. One at a time, for the module's life.
///
/// Without one they end at once, and what they had still to send is lost.
pub(crate) struct Lingering(());

impl Lingering {
    /// Begins. Process context, may sleep; once, in the module's init. `ENOMEM`.
    pub(crate) fn start() -> Result<Self> {
        // SAFETY: No socket is there yet, and `drop_hold` may be called with the holds of them all.
        to_result(unsafe { kfi_tcp_start(drop_hold) })?;
        Ok(Lingering(()))
    }
}

impl Drop for Lingering {
    /// Waits for those that linger: each does so for at most 5 s. No socket is there any more, and no operation whose
    /// bytes one of them has.
    fn drop(&mut self) {
        // SAFETY: It was started, and is stopped once. The module goes, which sockets do not outlive.
        unsafe { kfi_tcp_stop() };
    }
}

/// A network namespace, which stays as long as this.
pub(crate) struct Net(NonNull<RawNet>);

// SAFETY: Its reference may be used and given up by any thread.
unsafe impl Send for Net {}
// SAFETY: Sockets may be made in it by several threads at once.
unsafe impl Sync for Net {}

impl Net {
    /// The one that `namespace` names. Process context, may sleep. `ENONET`: it is gone.
    pub(crate) fn find(namespace: Namespace) -> Result<Self> {
        // SAFETY: No requirements.
        let net = unsafe { kfi_tcp_net_find(namespace.cookie()) };
        NonNull::new(net).map(Net).ok_or(ENONET)
    }

    /// The number of the interface of that name, here. Process context.
    pub(crate) fn interface(&self, name: &CStr) -> Option<u32> {
        // SAFETY: The namespace is held by `self`, and the name ends with a 0 byte.
        let number = unsafe { kfi_tcp_interface(self.0.as_ptr(), name.as_char_ptr()) };
        (number != 0).then_some(number)
    }

    /// Whether a socket could be bound to an address here, at some port. Process context, may sleep.
    ///
    /// # Errors
    /// - `EADDRNOTAVAIL`, `ENODEV`: it is no address of this host.
    /// - `EAFNOSUPPORT`: there is no IPv6.
    /// - `ENOMEM`; others that a bind gives.
    pub(crate) fn has(&self, at: SocketAddr) -> Result {
        let at = RawAddress::from(at);
        // SAFETY: The namespace is held by `self`, and `at` is read.
        to_result(unsafe { kfi_tcp_has(self.0.as_ptr(), &at) })
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        // SAFETY: The reference is ours, and given up once.
        unsafe { kfi_tcp_net_put(self.0.as_ptr()) };
    }
}

/// Who is woken by a socket.
enum Waker {
    Nobody,
    Somebody(Arc<dyn Wake>),
    /// Nobody, whoever may come: the socket is closed.
    Closed,
}

/// A TCP socket that never waits for a peer. Dropped without a close, it is aborted.
///
/// Its methods may be called by several threads at once, in process context and with no spinlock held;
/// they may sleep.
///
/// # Invariants
///
/// `raw` is a socket until `drop`, whose wake is [`wake`] with `waker` for its context. `waker` is read
/// by that, with the socket's callback lock held for reading, and else used with it held for writing.
pub(crate) struct Socket {
    raw: NonNull<RawSocket>,
    waker: KBox<UnsafeCell<Waker>>,
}

// SAFETY: The kernel's sockets, and an `Arc<dyn Wake>`, may be used and let go of by any thread.
unsafe impl Send for Socket {}
// SAFETY: Calls of the kernel's sockets lock them; `waker` has a lock, too.
unsafe impl Sync for Socket {}

/// Wakes who waits for a socket.
///
/// # Safety
///
/// `context` is the `waker` of a socket, whose callback lock is held for reading.
unsafe extern "C" fn wake(context: *mut c_void) {
    // SAFETY: It is there until its socket has been freed, and nobody changes it while the lock is held.
    if let Waker::Somebody(waker) = unsafe { &*context.cast::<Waker>() } {
        waker.wake();
    }
}

/// Drops a hold.
///
/// # Safety
///
/// `hold` was handed to [`kfi_tcp_splice`], and is dropped once.
unsafe extern "C" fn drop_hold(hold: *mut c_void) {
    if let Some(hold) = NonNull::new(hold) {
        // SAFETY: By the caller's word; it came from `into_raw`.
        drop(unsafe { Hold::from_raw(hold) });
    }
}

/// How many bytes went, or what a call gave instead.
fn count(ret: c_long) -> Result<usize> {
    usize::try_from(ret).or_else(|_| {
        let errno = c_int::try_from(ret).map_err(|_| EIO)?;
        Err(Error::from_errno(errno))
    })
}

impl Socket {
    /// `make` gets the context of the socket's wake.
    fn make(make: impl FnOnce(*mut c_void) -> *mut RawSocket) -> Result<Self> {
        let waker = KBox::new(UnsafeCell::new(Waker::Nobody), GFP_KERNEL)?;
        let raw = from_err_ptr(make(waker.get().cast()))?;
        // INVARIANT: It was made with `waker`, which stays where it is when the box moves.
        Ok(Socket {
            raw: NonNull::new(raw).ok_or(ENOMEM)?,
            waker,
        })
    }

    /// A socket that listens, and where: at a port of the kernel's choice if that of `at` is 0.
    ///
    /// # Errors
    /// - `EADDRINUSE`: another listens there.
    /// - `EADDRNOTAVAIL`: it is no address of this host.
    /// - `EAFNOSUPPORT`: there is no IPv6.
    /// - `ENOMEM`; others that a bind gives.
    pub(crate) fn listen(net: &Net, at: SocketAddr) -> Result<(Self, SocketAddr)> {
        let mut at = RawAddress::from(at);
        let socket = Self::make(|context| {
            // SAFETY: The namespace is held by `net`, `at` is also a place for the result, and `wake`
            // may be called with `context` until the socket is freed.
            unsafe { kfi_tcp_listen(net.0.as_ptr(), &mut at, wake, context) }
        })?;
        Ok((socket, at.into()))
    }

    /// A socket that begins to connect.
    ///
    /// # Errors
    /// `ENETUNREACH`, `EHOSTUNREACH`: there is no way. `ENOMEM`; others that a connect gives at once.
    pub(crate) fn dial(net: &Net, from: SocketAddr, to: SocketAddr) -> Result<Self> {
        let (from, to) = (RawAddress::from(from), RawAddress::from(to));
        Self::make(|context| {
            // SAFETY: As in `listen`.
            unsafe { kfi_tcp_dial(net.0.as_ptr(), &from, &to, wake, context) }
        })
    }

    /// One that a peer has made to this one, which listens.
    ///
    /// # Errors
    /// `EAGAIN`: there is none. `EINVAL`: it does not listen, or not any more. `ENOMEM`.
    pub(crate) fn accept(&self) -> Result<Self> {
        Self::make(|context| {
            // SAFETY: By the invariant, and as in `listen`.
            unsafe { kfi_tcp_accept(self.raw.as_ptr(), wake, context) }
        })
    }

    /// Has `waker` woken from now on instead of the one before, which is let go of.
    ///
    /// After [`Socket::close`] it is let go of at once.
    pub(crate) fn attach(&self, waker: Arc<dyn Wake>) {
        self.exchange(Waker::Somebody(waker));
    }

    fn exchange(&self, waker: Waker) {
        // SAFETY: By the invariant it is a socket.
        unsafe { kfi_tcp_lock(self.raw.as_ptr()) };
        // SAFETY: The lock is held for writing.
        let place = unsafe { &mut *self.waker.get() };
        let former = match place {
            Waker::Closed => waker,
            place => core::mem::replace(place, waker),
        };
        // SAFETY: It was locked above.
        unsafe { kfi_tcp_unlock(self.raw.as_ptr()) };
        // Not under the lock: it may be the last reference.
        drop(former);
    }

    /// Whether it is connected.
    ///
    /// # Errors
    /// Why it can't be, or is not any more.
    pub(crate) fn is_up(&self) -> Result<bool> {
        // SAFETY: By the invariant it is a socket.
        let state = unsafe { kfi_tcp_state(self.raw.as_ptr()) };
        to_result(state)?;
        Ok(state > 0)
    }

    /// Takes the first bytes of `from` to be sent, and says how many; `more`: others follow at once.
    ///
    /// # Errors
    /// `EAGAIN`: there is no room, and when there is some, somebody is woken. Others: why it is broken.
    pub(crate) fn send(&self, from: &mut IovIterSource<'_>, more: bool) -> Result<usize> {
        // SAFETY: By the invariant it is a socket; by its own the iterator may be loaded from, and the bytes are
        // copied.
        count(unsafe { kfi_tcp_send(self.raw.as_ptr(), from.as_raw(), more) })
    }

    /// As [`Socket::send`], but the bytes stay where they are, and `hold` is dropped when they are used no more;
    /// `None`: they have to be copied, and none was taken.
    ///
    /// # Errors
    /// As [`Socket::send`].
    pub(crate) fn splice(
        &self,
        from: &mut IovIterSource<'_>,
        more: bool,
        hold: Hold,
    ) -> Result<Option<usize>> {
        let (from, hold) = (from.as_raw(), hold.into_raw().as_ptr());
        // SAFETY: By the invariant it is a socket; by its own the iterator may be loaded from. While there is a hold
        // its bytes stay what and where they are, see `Link::splice`; it is handed over.
        let sent = count(unsafe { kfi_tcp_splice(self.raw.as_ptr(), from, more, hold) })?;
        Ok((sent > 0).then_some(sent))
    }

    /// Puts bytes that have come to the beginning of `into`, and says how many; none: the peer has ended.
    ///
    /// # Errors
    /// `EAGAIN`: there are none. Others: why it is broken, after all that came before.
    pub(crate) fn receive(&self, into: &mut IovIterDest<'_>) -> Result<usize> {
        // SAFETY: By the invariant it is a socket; by its own the iterator may be stored to.
        count(unsafe { kfi_tcp_receive(self.raw.as_ptr(), into.as_raw()) })
    }

    /// Ends it, and lets go of who is woken. More than once does no harm.
    ///
    /// `gently`: what was taken to be sent still goes, for at most 5 s after the drop. Else the peer sees
    /// a reset.
    pub(crate) fn close(&self, gently: bool) {
        self.exchange(Waker::Closed);
        // SAFETY: By the invariant it is a socket.
        unsafe { kfi_tcp_close(self.raw.as_ptr(), gently) };
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // SAFETY: By the invariant it is a socket, which is freed once. `waker` goes afterwards.
        unsafe { kfi_tcp_free(self.raw.as_ptr()) };
    }
}
