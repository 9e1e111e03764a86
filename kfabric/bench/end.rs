// SPDX-License-Identifier: GPL-2.0

//! An end: an endpoint for one on another host, and what it needs.

use crate::word::Word;
use kernel::prelude::*;
use kfabric::prelude::*;

/// The most operations in flight, and posted receives.
pub(crate) const DEPTH: usize = 512;

/// The longest message, in bytes.
pub(crate) const MESSAGE: usize = 4096;

/// An endpoint. Contexts are the numbers of buffers.
// What is made later is dropped earlier, and so closed in order.
pub(crate) struct End {
    pub(crate) ep: Endpoint<usize>,
    pub(crate) av: AddressVector,
    pub(crate) cq: CompletionQueue<usize>,
    pub(crate) domain: Domain,
    _fabric: Fabric,
}

impl End {
    /// Opens an endpoint of a provider: that of a service, or any. Sleeps. `ENODATA`: there is none.
    pub(crate) fn new(provider: &str, service: Option<&str>) -> Result<Self> {
        let hints = Hints {
            caps: Caps::MSG | Caps::RMA | Caps::SERVICE,
            endpoint_type: Some(EndpointType::Rdm),
            provider: Some(provider),
            source: service.map(|service| Place::Service {
                node: None,
                service: Some(service),
            }),
            tx_size: DEPTH,
            rx_size: DEPTH,
            ..Hints::default()
        };
        let info = *getinfo(&hints)?.first().ok_or(ENODATA)?;
        let fabric = Fabric::open(&info)?;
        let domain = fabric.domain(&info)?;
        let av = AddressVector::new(&domain)?;
        let cq = CompletionQueue::new(&domain, 2 * DEPTH, None)?;
        let ep = Endpoint::builder(&domain, &info).cq(&cq).av(&av).enable()?;
        Ok(End {
            ep,
            av,
            cq,
            domain,
            _fabric: fabric,
        })
    }

    /// The next completion, waited for as many milliseconds.
    #[inline]
    pub(crate) fn next(&self, timeout: u32) -> Result<Completion<usize>> {
        match self.cq.read() {
            Some(done) => Ok(done),
            None => self.cq.read_wait(timeout),
        }
    }

    /// Says a word, with few bytes. What comes next is waited for.
    #[inline]
    pub(crate) fn say(&self, to: Address, word: Word, bytes: &[u8]) -> Result {
        let options = Options {
            data: Some(word as u64),
            silent: true,
            more: true,
            ..Options::default()
        };
        self.ep.inject(bytes, to, options, 0)?;
        Ok(())
    }

    /// Receives into a message's memory.
    #[inline]
    pub(crate) fn hear(&self, memory: Memory) -> Result {
        self.ep.recv(memory, 0)?;
        Ok(())
    }
}
