// SPDX-License-Identifier: GPL-2.0

//! A node, in words: an IP address, as numbers.
//!
//! | text | what |
//! |---|---|
//! | `192.0.2.1` | a node: four numbers without leading zeros |
//! | `2001:db8::1` | a node: any form of RFC 4291, without brackets |
//! | `fe80::1%eth0`, `fe80::1%2` | a node of one link: with an interface, by name or number |
//!
//! Names of hosts are none. Texts that mean no one host, as that of a group, are not
//! told apart here, but by [`Spot`](crate::address::Spot).

use core::net::{IpAddr, Ipv6Addr, SocketAddr};
use kernel::prelude::*;
use kfabric::provider::text::number;

/// The most bytes of an interface's name, with the 0 byte behind it. Source: IFNAMSIZ.
const INTERFACE: usize = 16;

/// The address that `node` says, with port 0; `interface` knows the number of an interface by its name.
///
/// # Errors
/// - `EINVAL`: none.
/// - `ENXIO`: the interface is not there.
pub(crate) fn node(node: &str, interface: impl FnOnce(&CStr) -> Option<u32>) -> Result<SocketAddr> {
    let Some((ip, zone)) = node.split_once('%') else {
        let ip: IpAddr = node.parse().map_err(|_| EINVAL)?;
        return Ok(SocketAddr::new(ip, 0));
    };
    let ip: Ipv6Addr = ip.parse().map_err(|_| EINVAL)?;
    if !ip.is_unicast_link_local() {
        return Err(EINVAL);
    }
    let mut name = [0; INTERFACE];
    let room = name
        .get_mut(..INTERFACE - 1)
        .and_then(|room| room.get_mut(..zone.len()));
    if zone.is_empty() {
        return Err(EINVAL);
    }
    room.ok_or(EINVAL)?.copy_from_slice(zone.as_bytes());
    let name = CStr::from_bytes_until_nul(&name).map_err(|_| EINVAL)?;
    if name.to_bytes().len() != zone.len() {
        return Err(EINVAL);
    }
    // As elsewhere in the kernel, an interface that is called by a number goes first.
    let scope = match interface(name) {
        Some(scope) => scope,
        None => number(zone).ok_or(ENXIO)?,
    };
    let mut addr = SocketAddr::new(IpAddr::V6(ip), 0);
    match &mut addr {
        SocketAddr::V6(addr) if scope != 0 => addr.set_scope_id(scope),
        _ => return Err(EINVAL),
    }
    Ok(addr)
}

#[kunit_tests(kfi_tcp_text)]
mod tests {
    use super::*;
    use core::net::Ipv4Addr;

    /// A host that has two interfaces, one of them with a treacherous name.
    fn interface(name: &CStr) -> Option<u32> {
        match name.to_bytes() {
            b"eth0" => Some(7),
            b"9" => Some(3),
            b"fifteen-letters" => Some(15),
            _ => None,
        }
    }

    fn parse(text: &str) -> Result<SocketAddr> {
        node(text, interface)
    }

    #[test]
    fn node_is_an_address_in_numbers() {
        let v4 = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
        assert_eq!(parse("192.0.2.1"), Ok(SocketAddr::new(v4, 0)));
        let v6 = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));
        for text in [
            "2001:db8::1",
            "2001:DB8::1",
            "2001:db8:0:0:0:0:0:1",
            "2001:db8::0.0.0.1",
        ] {
            assert_eq!(parse(text), Ok(SocketAddr::new(v6, 0)));
        }
        // Whether they lead to a host is not for this to say.
        for text in [
            "0.0.0.0",
            "::",
            "255.255.255.255",
            "::ffff:1.2.3.4",
            "fe80::1",
        ] {
            assert!(parse(text).is_ok());
        }
    }

    #[test]
    fn node_that_is_anything_else_is_refused() {
        for text in [
            "",
            " ",
            "localhost",
            "example.org",
            "192.0.2",
            "192.0.2.1.1",
            "192.0.2.256",
            "192.0.2.01",
            "192.0.2.1 ",
            " 192.0.2.1",
            "192.0.2.1\0",
            "192.0.2.1\n",
            "3221225985",
            "0xc0000201",
            "0300.0.2.1",
            "192.0.2.1:80",
            "192.0.2.1/24",
            "192.0.2.1%eth0",
            "[::1]",
            "[::1]:80",
            ":::",
            "::1::",
            "2001:db8::1/64",
            "2001:db8::12345",
            "1:2:3:4:5:6:7:8:9",
            "1:2:3:4:5:6:7",
            "::1%eth0",
            "2001:db8::1%eth0",
            "::1.2.3.4.5",
            "::1\0",
            "%",
            "%eth0",
            "-1.0.0.1",
            "+1.0.0.1",
            "1..2.3",
            "\u{661}.0.0.1",
        ] {
            assert_eq!(parse(text), Err(EINVAL));
        }
        // Longer than any address, by far.
        let long = [b'1'; 4096];
        assert_eq!(core::str::from_utf8(&long).map(parse), Ok(Err(EINVAL)));
    }

    #[test]
    fn address_of_one_link_has_an_interface_of_this_host() {
        let scope = |text| {
            parse(text).map(|addr| match addr {
                SocketAddr::V6(addr) => addr.scope_id(),
                SocketAddr::V4(_) => 0,
            })
        };
        for (text, expected) in [
            ("fe80::1%eth0", Ok(7)),
            ("fe80::1%fifteen-letters", Ok(15)),
            ("fe80::1%2", Ok(2)),
            ("fe80::1%4294967295", Ok(u32::MAX)),
            ("fe80::1%9", Ok(3)),
            ("fe80::1%", Err(EINVAL)),
            ("fe80::1%0", Err(EINVAL)),
            ("fe80::1%4294967296", Err(ENXIO)),
            ("fe80::1%eth1", Err(ENXIO)),
            ("fe80::1%sixteen-letters-", Err(EINVAL)),
            ("fe80::1%eth0\0", Err(EINVAL)),
            ("fe80::1%\0eth0", Err(EINVAL)),
            ("fe80::1%eth0%eth0", Err(ENXIO)),
            ("fe80::1%02", Err(ENXIO)),
            ("fe80::1%-2", Err(ENXIO)),
        ] {
            assert_eq!(scope(text), expected);
        }
    }
}
