// SPDX-License-Identifier: GPL-2.0

//! An address: where a peer listens; and a spot, where one may be to listen. The bytes that say so
//! in names.
//!
//! | bytes | what |
//! |---|---|
//! | 1 | version of IP: 4 or 6 |
//! | 2 | port |
//! | 4 or 16 | address |
//! | 4 | of version 6 alone: the interface, of an address of one link; else 0 |
//!
//! Numbers are big-endian. The number of an interface is this host's own: an address of one link is
//! for peers that have the same number for it.

use core::net::{IpAddr, SocketAddr};
use kernel::fmt;
use kernel::prelude::*;

/// Where a peer listens: an address of one host, and a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Address(SocketAddr);

/// Where somebody may be to listen: as an address, but the port may be open, and the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spot(SocketAddr);

/// The bytes of an address.
#[derive(Clone, Copy)]
pub(crate) struct Bytes {
    bytes: [u8; Address::MAX],
    len: usize,
}

impl Bytes {
    /// They.
    pub(crate) fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&[])
    }

    fn push(&mut self, more: &[u8]) {
        for (to, from) in self.bytes.iter_mut().skip(self.len).zip(more) {
            *to = *from;
            self.len += 1;
        }
    }
}

impl Spot {
    /// A spot, by its numbers.
    ///
    /// # Errors
    /// `EINVAL`: it leads to more than one host; or there is another way to write it.
    pub(crate) fn new(addr: SocketAddr) -> Result<Self> {
        let is_one = match addr {
            SocketAddr::V4(addr) => !(addr.ip().is_multicast() || addr.ip().is_broadcast()),
            SocketAddr::V6(addr) => {
                let ip = addr.ip();
                !ip.is_multicast()
                    && ip.to_ipv4_mapped().is_none()
                    && ip.is_unicast_link_local() == (addr.scope_id() != 0)
                    && addr.flowinfo() == 0
            }
        };
        match is_one {
            true => Ok(Spot(addr)),
            false => Err(EINVAL),
        }
    }

    /// Of the bytes, which may be anybody's.
    ///
    /// # Errors
    /// `EINVAL`: they are no spot, or not its only form.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self> {
        let (&version, rest) = bytes.split_first().ok_or(EINVAL)?;
        let (port, rest) = rest.split_first_chunk().ok_or(EINVAL)?;
        let port = u16::from_be_bytes(*port);
        let addr = match version {
            4 => {
                let ip: [u8; 4] = rest.try_into().map_err(|_| EINVAL)?;
                SocketAddr::new(IpAddr::from(ip), port)
            }
            6 => {
                let (ip, scope) = rest.split_first_chunk::<16>().ok_or(EINVAL)?;
                let scope: [u8; 4] = scope.try_into().map_err(|_| EINVAL)?;
                let mut addr = SocketAddr::new(IpAddr::from(*ip), port);
                if let SocketAddr::V6(addr) = &mut addr {
                    addr.set_scope_id(u32::from_be_bytes(scope));
                }
                addr
            }
            _ => return Err(EINVAL),
        };
        Self::new(addr)
    }

    /// Its bytes.
    pub(crate) fn emit(&self) -> Bytes {
        let mut bytes = Bytes {
            bytes: [0; Address::MAX],
            len: 0,
        };
        let port = self.0.port().to_be_bytes();
        match self.0 {
            SocketAddr::V4(addr) => {
                bytes.push(&[4]);
                bytes.push(&port);
                bytes.push(&addr.ip().octets());
            }
            SocketAddr::V6(addr) => {
                bytes.push(&[6]);
                bytes.push(&port);
                bytes.push(&addr.ip().octets());
                bytes.push(&addr.scope_id().to_be_bytes());
            }
        }
        bytes
    }

    /// For a socket.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.0
    }

    /// Itself; or, if its address is open, that of `default` with its port. `EADDRNOTAVAIL`: that is
    /// of the other version of IP, or open too.
    pub(crate) fn or(self, default: SocketAddr) -> Result<Self> {
        if !self.0.ip().is_unspecified() {
            return Ok(self);
        }
        let mut addr = default;
        addr.set_port(self.0.port());
        if addr.ip().is_unspecified() || addr.is_ipv4() != self.0.is_ipv4() {
            return Err(EADDRNOTAVAIL);
        }
        Self::new(addr).map_err(|_| EADDRNOTAVAIL)
    }
}

impl Address {
    /// The most bytes of one.
    pub(crate) const MAX: usize = 1 + 2 + 16 + 4;

    /// The address of a socket that listens.
    ///
    /// # Errors
    /// `EINVAL`: it leads to no host, or to more than one; or there is another way to write it.
    pub(crate) fn new(addr: SocketAddr) -> Result<Self> {
        let Spot(addr) = Spot::new(addr)?;
        if addr.ip().is_unspecified() || addr.port() == 0 {
            return Err(EINVAL);
        }
        Ok(Address(addr))
    }

    /// Of the bytes, which may be anybody's.
    ///
    /// # Errors
    /// `EINVAL`: they are no address, or not its only form.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self> {
        Self::new(Spot::parse(bytes)?.0)
    }

    /// Its bytes.
    pub(crate) fn emit(&self) -> Bytes {
        Spot(self.0).emit()
    }

    /// For a socket.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.0
    }

    /// As [`Address::addr`], but of no port: where links to peers come from.
    pub(crate) fn source(&self) -> SocketAddr {
        let mut addr = self.0;
        addr.set_port(0);
        addr
    }

    /// Whether both are of one version of IP: else no link goes from one to the other.
    pub(crate) fn is_like(&self, other: &SocketAddr) -> bool {
        self.0.is_ipv4() == other.is_ipv4()
    }
}

impl fmt::Display for Address {
    /// As `192.0.2.1:4791`, `[2001:db8::1]:4791` or `[fe80::1%2]:4791`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        core::fmt::Display::fmt(&self.0, f)
    }
}

#[kunit_tests(kfi_tcp_address)]
mod tests {
    use super::*;
    use kernel::str::CString;

    const V4: [u8; 7] = [4, 0x12, 0xb7, 192, 0, 2, 1];
    const V6: [u8; 23] = [
        6, 0x12, 0xb7, 0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0,
    ];
    const LINK_LOCAL: [u8; 23] = [
        6, 0x12, 0xb7, 0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2,
    ];

    /// `bytes`, of which those from `at` on are `with`.
    fn changed<const N: usize>(mut bytes: [u8; N], at: usize, with: &[u8]) -> [u8; N] {
        bytes[at..at + with.len()].copy_from_slice(with);
        bytes
    }

    fn text(bytes: &[u8]) -> Result<CString> {
        let address = Address::parse(bytes)?;
        Ok(CString::try_from_fmt(fmt!("{address}"))?)
    }

    #[test]
    fn what_is_parsed_is_emitted_again() -> Result {
        for bytes in [&V4[..], &V6, &LINK_LOCAL] {
            assert_eq!(Address::parse(bytes)?.emit().as_slice(), bytes);
        }
        Ok(())
    }

    #[test]
    fn address_is_written_as_one_reads_it() -> Result {
        assert_eq!(text(&V4)?.to_bytes(), b"192.0.2.1:4791");
        assert_eq!(text(&V6)?.to_bytes(), b"[2001:db8::1]:4791");
        assert_eq!(text(&LINK_LOCAL)?.to_bytes(), b"[fe80::1%2]:4791");
        Ok(())
    }

    #[test]
    fn other_lengths_are_refused() {
        for bytes in [&V4[..], &V6] {
            for len in 0..bytes.len() {
                assert!(Address::parse(&bytes[..len]).is_err());
            }
        }
        let mut long = [0; V6.len() + 1];
        long[..V4.len()].copy_from_slice(&V4);
        assert!(Address::parse(&long[..V4.len() + 1]).is_err());
        long[..V6.len()].copy_from_slice(&V6);
        assert!(Address::parse(&long).is_err());
        // The length of the other version.
        assert!(Address::parse(&changed(V6, 0, &[4])).is_err());
        assert!(Address::parse(&changed(V4, 0, &[6])).is_err());
    }

    #[test]
    fn every_other_version_is_refused() {
        for version in (0..=255).filter(|version| ![4, 6].contains(version)) {
            assert!(Address::parse(&changed(V4, 0, &[version])).is_err());
            assert!(Address::parse(&changed(V6, 0, &[version])).is_err());
        }
    }

    #[test]
    fn what_leads_to_no_one_host_is_refused() {
        assert!(Address::parse(&changed(V4, 1, &[0, 0])).is_err());
        assert!(Address::parse(&changed(V6, 1, &[0, 0])).is_err());
        for ip in [[0, 0, 0, 0], [224, 0, 0, 1], [255, 255, 255, 255]] {
            assert!(Address::parse(&changed(V4, 3, &ip)).is_err());
        }
        assert!(Address::parse(&changed(V6, 3, &[0; 16])).is_err());
        assert!(Address::parse(&changed(V6, 3, &[0xff, 2])).is_err());
    }

    #[test]
    fn second_form_of_an_address_is_refused() {
        // ::ffff:192.0.2.1
        let mut mapped = [0; 16];
        mapped[10..].copy_from_slice(&[0xff, 0xff, 192, 0, 2, 1]);
        assert!(Address::parse(&changed(V6, 3, &mapped)).is_err());
        // An interface where none belongs, and none where one does.
        assert!(Address::parse(&changed(V6, 19, &[0, 0, 0, 2])).is_err());
        assert!(Address::parse(&changed(LINK_LOCAL, 19, &[0; 4])).is_err());
    }

    #[test]
    fn versions_are_told_apart() -> Result {
        let (v4, v6) = (Address::parse(&V4)?, Address::parse(&V6)?);
        assert!(v4.is_like(&v4.addr()) && v6.is_like(&v6.addr()));
        assert!(!v4.is_like(&v6.addr()));
        assert_eq!(v6.source().port(), 0);
        assert_eq!(v6.source().ip(), v6.addr().ip());
        Ok(())
    }

    #[test]
    fn spot_may_leave_port_and_address_open() -> Result {
        for bytes in [
            &changed(V4, 1, &[0; 6])[..],
            &changed(V4, 1, &[0, 0]),
            &changed(V4, 3, &[0; 4]),
            &changed(V6, 1, &[0; 22]),
            &V4,
            &LINK_LOCAL,
        ] {
            assert_eq!(Spot::parse(bytes)?.emit().as_slice(), bytes);
        }
        for bytes in [
            &changed(V4, 3, &[224, 0, 0, 1])[..],
            &changed(V6, 3, &[0xff, 2]),
            &changed(V6, 19, &[0, 0, 0, 2]),
            &V4[..6],
            &[],
        ] {
            assert_eq!(Spot::parse(bytes).err(), Some(EINVAL));
        }
        Ok(())
    }

    #[test]
    fn open_address_is_the_default_of_its_version() -> Result {
        let (v4, v6) = (Address::parse(&V4)?.addr(), Address::parse(&V6)?.addr());
        let any_v4 = Spot::parse(&changed(V4, 1, &[0, 7, 0, 0, 0, 0]))?;
        let found = any_v4.or(v4)?.addr();
        assert_eq!((found.ip(), found.port()), (v4.ip(), 7));
        assert_eq!(any_v4.or(v6), Err(EADDRNOTAVAIL));
        assert_eq!(any_v4.or(any_v4.addr()), Err(EADDRNOTAVAIL));
        // What is not open stays.
        assert_eq!(Spot::parse(&V6)?.or(v4)?.addr(), v6);
        assert_eq!(
            Spot::parse(&LINK_LOCAL)?.or(v6)?.emit().as_slice(),
            &LINK_LOCAL
        );
        Ok(())
    }
}
