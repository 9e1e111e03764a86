// SPDX-License-Identifier: GPL-2.0

//! A peer that a test plays itself, frame by frame.

use super::super::link::{Link, Links};
use super::net::Net;
use super::{check, until, PATIENCE_MS};
use crate::av::Name;
use crate::proto::wire::hello::{self, Limits, VERSIONS};
use crate::proto::wire::{self, crc, Header, Hello, Kind};
use kernel::prelude::*;
use kernel::sync::Arc;

/// What it tells that it takes.
pub(crate) const LIMITS: Limits = Limits {
    frame: 4096,
    eager: 1024,
    message: 1 << 20,
    ops: 16,
    contexts: 2,
};

/// A peer, and the link to it.
pub(crate) struct Script {
    name: Name,
    link: Arc<dyn Link>,
}

/// The name of the endpoint of that number at an address.
pub(crate) fn name(address: u8, number: u64) -> Result<Name> {
    let mut bytes = [address; 9];
    bytes[1..].copy_from_slice(&number.to_le_bytes());
    Name::new(&bytes)
}

impl Script {
    /// Makes a link to the host of an endpoint, as a peer of that name.
    pub(crate) fn dial(net: &Arc<Net>, name: Name, to: &Name) -> Result<Self> {
        let address = |name: &Name| name.as_bytes().first().copied().ok_or(EINVAL);
        let link = net.dial(address(&name)?, address(to)?)?;
        Ok(Script { name, link })
    }

    /// Takes a link that was made to `host`, as a peer of that name.
    #[track_caller]
    pub(crate) fn accept(host: &dyn Links, name: Name) -> Result<Self> {
        let mut link = None;
        until(|| {
            link = host.accept().ok();
            link.is_some()
        })?;
        let link = link.ok_or(ETIMEDOUT)?;
        Ok(Script { name, link })
    }

    /// The hello to an endpoint, of an incarnation, with a generation.
    pub(crate) fn hello(&self, to: &Name, incarnation: u64, generation: u32) -> Result<Hello> {
        let wire = |name: &Name| hello::Name::new(name.as_bytes()).ok_or(EINVAL);
        Ok(Hello {
            versions: VERSIONS,
            caps: 0,
            incarnation,
            expects: 0,
            last: 0,
            generation,
            limits: LIMITS,
            from: wire(&self.name)?,
            to: wire(to)?,
        })
    }

    /// Says hello.
    pub(crate) fn greet(&self, hello: &Hello) -> Result {
        let mut room = [0; hello::MAX];
        let len = hello.emit(&mut room);
        let mut header = Header::new(Kind::Hello);
        header.len = len as u32;
        header.payload_crc = crc::of(&[&room[..len]]);
        self.say_bytes(&header.emit(false))?;
        self.say_bytes(&room[..len])
    }

    /// Greets, hears the answer, and grants credit for some messages.
    #[track_caller]
    pub(crate) fn meet(&self, to: &Name) -> Result {
        self.greet(&self.hello(to, 77, 1)?)?;
        if self.hear()?.0.kind != Kind::Hello {
            return Err(EPROTO);
        }
        let mut header = Header::new(Kind::Grant);
        // That of the consumer's messages.
        header.context = 1;
        (header.total, header.data) = (1 << 16, 16);
        self.say(&header, &[])
    }

    /// Says a frame.
    pub(crate) fn say(&self, header: &Header, payload: &[u8]) -> Result {
        let mut header = *header;
        header.len = payload.len() as u32;
        self.say_bytes(&header.emit(false))?;
        self.say_bytes(payload)
    }

    /// Sends bytes, whatever they are.
    pub(crate) fn say_bytes(&self, bytes: &[u8]) -> Result {
        let mut rest = bytes;
        let mut broken = Ok(());
        until(|| {
            while !rest.is_empty() {
                match self.link.send_bytes(rest, false) {
                    Ok(len) => rest = rest.get(len..).unwrap_or(&[]),
                    Err(EAGAIN) => return false,
                    Err(error) => {
                        broken = Err(error);
                        break;
                    }
                }
            }
            true
        })?;
        broken
    }

    /// The next frame.
    #[track_caller]
    pub(crate) fn hear(&self) -> Result<(Header, KVVec<u8>)> {
        let mut header = [0; wire::SIZE];
        self.fill(&mut header)?;
        let header = Header::parse(&header, LIMITS.frame, false);
        check(header.is_ok())?;
        let header = header.map_err(|_| EBADMSG)?;
        let mut payload = KVVec::from_elem(0, header.len as usize, GFP_KERNEL)?;
        self.fill(&mut payload)?;
        Ok((header, payload))
    }

    /// The next frame of that kind; those before it are passed over.
    #[track_caller]
    pub(crate) fn await_kind(&self, kind: Kind) -> Result<(Header, KVVec<u8>)> {
        for _ in 0..PATIENCE_MS {
            let frame = self.hear()?;
            if frame.0.kind == kind {
                return Ok(frame);
            }
        }
        Err(ETIMEDOUT)
    }

    /// Waits until the link has ended; what comes before is passed over.
    pub(crate) fn hears_the_end(&self) -> Result {
        let mut byte = [0; 64];
        until(|| loop {
            match self.link.receive_bytes(&mut byte) {
                Ok(1..) => {}
                Err(EAGAIN) => return false,
                Ok(0) | Err(_) => return true,
            }
        })
    }

    /// Fails if the link ends, or breaks, before there are as many bytes.
    #[track_caller]
    fn fill(&self, into: &mut [u8]) -> Result {
        let (mut have, mut ended) = (0, false);
        until(|| {
            while let Some(room) = into.get_mut(have..).filter(|room| !room.is_empty()) {
                match self.link.receive_bytes(room) {
                    Ok(len @ 1..) => have += len,
                    Err(EAGAIN) => return false,
                    Ok(0) | Err(_) => {
                        ended = true;
                        return true;
                    }
                }
            }
            true
        })?;
        check(!ended)
    }
}
