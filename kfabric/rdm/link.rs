// SPDX-License-Identifier: GPL-2.0

//! What a provider supplies that has links and nothing more.
//!
//! A [`Link`] brings bytes to one peer, in order, until it breaks; [`Links`] makes them to
//! addresses, and takes those that peers make. The engine does the rest: see Documentation/engine.rst.
//!
//! All methods are called in process context, by one task at a time for each link, and never wait
//! for a peer: what can't be done now is `EAGAIN`, and the waker is woken when it can. The task is a
//! worker, or one of a consumer that waits for completions, with its priority, its control group and
//! perhaps a pending signal; [`Links`] are called by workers alone.

use crate::av::Name;
use crate::sys::{iter, random};
use kernel::prelude::*;
use kernel::sync::Arc;

/// What a link puts bytes into, and takes them from: an iterator of the kernel's (`struct iov_iter`) over mapped
/// bytes or pages of this host, good for the call alone.
pub use kernel::iov::{IovIterDest, IovIterSource};

/// What keeps bytes as they are that a link has not copied: see [`Link::splice`].
pub use crate::sys::slot::Hold;

/// Somebody who is to look at a link, or at those that peers make.
pub trait Wake: Send + Sync {
    /// Has them look, soon, in a context of their own. Any context but hardirq; never sleeps.
    ///
    /// The link may hold a lock of its own: none is taken under which a method of a link is called.
    fn wake(&self);
}

/// The way of bytes to one peer and back, in order, until it breaks.
///
/// Its last reference is dropped in process context, and may sleep; without a close before, it breaks
/// for the peer, too.
pub trait Link: Send + Sync + 'static {
    /// Has `waker` woken from now on, in the place of the one before: when the link is made, has
    /// bytes, takes bytes again, or breaks. It looks by itself once, at the beginning.
    fn attach(&self, waker: Arc<dyn Wake>);

    /// Whether it is made.
    ///
    /// # Errors
    /// Why it can't be made, or has broken: `ECONNREFUSED`, `ETIMEDOUT`, `EHOSTUNREACH` ...
    fn is_up(&self) -> Result<bool>;

    /// Takes the first bytes of `from`, which is not empty, to be sent, and says how many, at least one; `more`:
    /// others follow at once.
    ///
    /// They are its own when it returns: what they were taken from may change then. How far `from` has advanced
    /// does not matter.
    ///
    /// # Errors
    /// `EAGAIN`; others: the link is broken.
    fn send(&self, from: &mut IovIterSource<'_>, more: bool) -> Result<usize>;

    /// As [`Link::send`], but the bytes may stay where they are for as long as the link has `hold`: nobody but peers
    /// with a right to them changes them, and their memory is not given back. `None`: it would have to copy them,
    /// and has taken none.
    ///
    /// The hold is dropped, in any context but hardirq, once nobody will read them any more: not the other side's
    /// affair alone, since they may be sent again, or still be in a queue of a device. It outlives a close only as
    /// long as this host's own queues take. Dropping it may complete an operation, and so takes locks that a post
    /// takes.
    ///
    /// # Errors
    /// As [`Link::send`].
    fn splice(
        &self,
        _from: &mut IovIterSource<'_>,
        _more: bool,
        _hold: Hold,
    ) -> Result<Option<usize>> {
        Ok(None)
    }

    /// Puts bytes that have come to the beginning of `into`, which is not empty, and says how many; none: the
    /// peer has ended the link.
    ///
    /// It may be the memory of a region, or of a receive: when it returns, nothing is stored there any more. How
    /// far `into` has advanced does not matter.
    ///
    /// # Errors
    /// `EAGAIN`; others: the link is broken.
    fn receive(&self, into: &mut IovIterDest<'_>) -> Result<usize>;

    /// Ends it; `gently`: what was taken to be sent still goes. When it returns, the waker is let go
    /// of, and not woken any more. More than once does no harm.
    fn close(&self, gently: bool);
}

impl dyn Link + '_ {
    /// As [`Link::send`], from a slice.
    pub fn send_bytes(&self, bytes: &[u8], more: bool) -> Result<usize> {
        iter::source(bytes, |from| self.send(from, more))
    }

    /// As [`Link::receive`], into a slice.
    pub fn receive_bytes(&self, bytes: &mut [u8]) -> Result<usize> {
        iter::dest(bytes, |into| self.receive(into))
    }
}

/// Where links begin and end on this host: of one domain.
pub trait Links: Send + Sync + 'static {
    /// The bytes by which peers reach it: at most [`MAX_ADDRESS`]. No other links begin or end there.
    fn address(&self) -> &[u8];

    /// Whether the frames of its links are to carry checksums of what follows their headers, and of the headers:
    /// they do if the peer's are to as well. For links that may damage bytes and not notice.
    fn has_sums(&self) -> bool {
        false
    }

    /// Begins to make a link to that address: [`Link::is_up`] tells when it is made.
    ///
    /// # Errors
    /// `EINVAL`: no address of this provider. `ENOMEM`; `EHOSTUNREACH`, `ENETUNREACH` and others: there
    /// is no way.
    fn dial(&self, address: &[u8]) -> Result<Arc<dyn Link>>;

    /// A link that a peer has made. `EAGAIN`: there is none; `EINVAL`: after a close; `ENOMEM`.
    fn accept(&self) -> Result<Arc<dyn Link>>;

    /// Has `waker` woken from now on when [`Links::accept`] has something.
    fn attach(&self, waker: Arc<dyn Wake>);

    /// Takes no links any more. When it returns, the waker is let go of, and not woken any more.
    fn close(&self);
}

/// The longest address: a name has room for it, and for the number of an endpoint.
pub const MAX_ADDRESS: usize = Name::MAX - size_of::<u64>();

/// The number of an endpoint that is reached by the address of its domain alone: at most one of a
/// domain.
pub(super) const SERVICE: u64 = 1;

/// The place of a domain at `address`, whose endpoints have random numbers. `EINVAL`: it is empty, or
/// longer than [`MAX_ADDRESS`].
pub fn anywhere_at(address: &[u8]) -> Result<Name> {
    numbered(address, 0)
}

/// The name of the endpoint that is reached by `address` alone, whoever it is just now: that of an
/// endpoint whose info has it for its source. `EINVAL`: as [`anywhere_at`].
pub fn service_at(address: &[u8]) -> Result<Name> {
    numbered(address, SERVICE)
}

/// Where the lane is in a number: see [`in_lane`].
const LANE_SHIFT: u32 = 56;

/// The number without a lane.
const NUMBER: u64 = (1 << LANE_SHIFT) - 1;

/// The name under which the transmit context of this index of an endpoint makes its sessions. That of the first is
/// the endpoint's own. `EINVAL`: this is no name of an endpoint over links; there is no such lane.
pub(super) fn in_lane(name: &Name, lane: usize) -> Result<Name> {
    let (address, number) = parts(name).ok_or(EINVAL)?;
    let lane = u8::try_from(lane).map_err(|_| EINVAL)?;
    numbered(address, number & NUMBER | u64::from(lane) << LANE_SHIFT)
}

/// Which of its transmit contexts the endpoint of this name makes sessions by, and its own name.
pub(super) fn lane_of(name: &Name) -> Option<(usize, Name)> {
    let (address, number) = parts(name)?;
    let whole = numbered(address, number & NUMBER).ok()?;
    Some(((number >> LANE_SHIFT) as usize, whole))
}

/// A number for an endpoint that is no service.
pub(super) fn random_number() -> u64 {
    (random::u64() & NUMBER).max(SERVICE + 1)
}

/// The name of an address and a number.
pub(super) fn numbered(address: &[u8], number: u64) -> Result<Name> {
    let mut bytes = [0; Name::MAX];
    let end = address.len() + size_of::<u64>();
    if address.is_empty() {
        return Err(EINVAL);
    }
    let name = bytes.get_mut(..end).ok_or(EINVAL)?;
    let (head, tail) = name.split_at_mut(address.len());
    head.copy_from_slice(address);
    tail.copy_from_slice(&number.to_le_bytes());
    Name::new(name)
}

/// The address of a place that is [`anywhere_at`] or [`service_at`] it, and whether it is the latter.
pub fn source_of(place: &Name) -> Option<(&[u8], bool)> {
    let (address, number) = place.as_bytes().split_last_chunk::<8>()?;
    let is_service = match u64::from_le_bytes(*number) {
        0 => false,
        SERVICE => true,
        _ => return None,
    };
    (!address.is_empty()).then_some((address, is_service))
}

/// The parts of an endpoint's name: the address of its domain, and its number there.
pub(super) fn parts(name: &Name) -> Option<(&[u8], u64)> {
    let (address, number) = name.as_bytes().split_last_chunk::<8>()?;
    let number = u64::from_le_bytes(*number);
    // No endpoint has the number 0: it stands for nobody.
    let known = !address.is_empty() && address.len() <= MAX_ADDRESS && number & NUMBER != 0;
    known.then_some((address, number))
}

/// The address in an endpoint's name; `None`: it is none of an endpoint over links.
pub fn address_of(name: &Name) -> Option<&[u8]> {
    parts(name).map(|(address, _)| address)
}

#[kunit_tests(kfabric_rdm_link)]
mod tests {
    use super::*;

    const LONG: [u8; MAX_ADDRESS + 1] = [b'a'; MAX_ADDRESS + 1];

    #[test]
    fn address_has_a_byte_and_no_more_than_fit_a_name() -> Result {
        for (len, fits) in [
            (0, false),
            (1, true),
            (MAX_ADDRESS, true),
            (MAX_ADDRESS + 1, false),
        ] {
            let address = &LONG[..len];
            for name in [
                numbered(address, 7),
                anywhere_at(address),
                service_at(address),
            ] {
                assert_eq!(name.err(), (!fits).then_some(EINVAL));
            }
            if fits {
                assert!(parts(&numbered(address, 7)?) == Some((address, 7)));
                assert_eq!(address_of(&service_at(address)?), Some(address));
            }
        }
        Ok(())
    }

    #[test]
    fn name_of_an_endpoint_has_an_address_and_a_number() -> Result {
        for (number, known) in [
            (0, false),
            (SERVICE, true),
            (NUMBER, true),
            // A lane of nobody.
            (NUMBER + 1, false),
            (NUMBER + 2, true),
            (u64::MAX, true),
        ] {
            let name = numbered(b"a", number)?;
            let parts = parts(&name);
            assert!(parts == known.then_some((b"a".as_slice(), number)));
            assert_eq!(address_of(&name).is_some(), known);
            assert_eq!(lane_of(&name).is_some(), known);
            assert_eq!(in_lane(&name, 1).is_ok(), known);
        }
        for bytes in [&b""[..], b"1234567", &[1; 8]] {
            let name = match bytes {
                [] => Name::NONE,
                bytes => Name::new(bytes)?,
            };
            assert!(parts(&name).is_none() && lane_of(&name).is_none());
            assert_eq!(in_lane(&name, 0).err(), Some(EINVAL));
        }
        Ok(())
    }

    #[test]
    fn place_is_anywhere_or_a_service_and_no_endpoint() -> Result {
        let (anywhere, service) = (anywhere_at(b"a")?, service_at(b"a")?);
        assert_eq!(source_of(&anywhere), Some((b"a".as_slice(), false)));
        assert_eq!(source_of(&service), Some((b"a".as_slice(), true)));
        for number in [SERVICE + 1, NUMBER, NUMBER + 1 + SERVICE, u64::MAX] {
            assert!(source_of(&numbered(b"a", number)?).is_none());
        }
        for bytes in [&[0; 8][..], &[0; 7]] {
            assert!(source_of(&Name::new(bytes)?).is_none());
        }
        Ok(())
    }

    #[test]
    fn random_number_is_no_service_and_in_no_lane() {
        for _ in 0..64 {
            assert!((SERVICE + 1..=NUMBER).contains(&random_number()));
        }
    }
}
