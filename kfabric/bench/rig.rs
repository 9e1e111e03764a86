// SPDX-License-Identifier: GPL-2.0

//! The rig: two endpoints that complete in one queue, and what they need.

use kernel::prelude::*;
use kfabric::prelude::*;

/// The most operations in flight.
pub(crate) const DEPTH: usize = 32;

/// The slots that endpoints may bind: as many as a queue may have, since it needs no memory for them.
const SIZE: usize = 1 << 20;

/// How long a completion may take, in milliseconds.
const TIMEOUT: u32 = 20_000;

/// Two endpoints. Contexts are the numbers of the buffers of a load.
// What is made later is dropped earlier, and so closed in order.
pub(crate) struct Rig {
    pub(crate) a: Endpoint<usize>,
    pub(crate) b: Endpoint<usize>,
    pub(crate) to_b: Address,
    pub(crate) av: AddressVector,
    pub(crate) cq: CompletionQueue<usize>,
    pub(crate) domain: Domain,
    pub(crate) info: Info,
    _fabric: Fabric,
}

impl Rig {
    /// Opens everything, of the first provider. Sleeps. `ENODATA`: there is none.
    pub(crate) fn new() -> Result<Self> {
        let hints = Hints {
            caps: Caps::MSG | Caps::RMA,
            tx_size: DEPTH,
            rx_size: DEPTH,
            ..Hints::default()
        };
        let info = *getinfo(&hints)?.first().ok_or(ENODATA)?;
        let fabric = Fabric::open(&info)?;
        let domain = fabric.domain(&info)?;
        let av = AddressVector::new(&domain)?;
        let cq = CompletionQueue::new(&domain, SIZE, None)?;
        let a = Endpoint::builder(&domain, &info).cq(&cq).av(&av).enable()?;
        let b = Endpoint::builder(&domain, &info).cq(&cq).av(&av).enable()?;
        Ok(Rig {
            to_b: av.insert(&b.name())?,
            a,
            b,
            av,
            cq,
            domain,
            info,
            _fabric: fabric,
        })
    }

    /// The next completion: at once where it is there, as that of a short operation.
    #[inline]
    pub(crate) fn next(&self) -> Result<Completion<usize>> {
        match self.cq.read() {
            Some(done) => Ok(done),
            None => self.cq.read_wait(TIMEOUT),
        }
    }
}
