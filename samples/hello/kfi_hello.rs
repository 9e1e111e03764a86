// SPDX-License-Identifier: GPL-2.0

//! The smallest consumer: a message and an RMA write, over the first provider that is found.
//!
//! Loaded, it does both between two endpoints of its own, prints what came of it, and closes
//! everything again. Needs a provider that is loaded; `ENODATA` if there is none that can do both.
//! Documentation/tutorial.rst explains it line by line; README.md shows the function `hello`.

#![deny(unsafe_code, unused_must_use)]

use kernel::{prelude::*, str::BStr};
use kfabric::prelude::*;

module! {
    type: Hello,
    name: "kfi_hello",
    authors: ["The kfabric developers"],
    description: "The smallest kfabric consumer",
    license: "GPL",
}

/// How long it waits for a completion, in milliseconds.
const TIMEOUT: u32 = 10_000;

fn hello() -> Result {
    let hints = Hints {
        caps: Caps::MSG | Caps::WRITE,
        tx_size: 8,
        rx_size: 8,
        ..Hints::default()
    };
    let info = *getinfo(&hints)?.first().ok_or(ENODATA)?;
    // Two endpoints. What is made later is dropped earlier, and so closed in order.
    let domain = Fabric::open(&info)?.domain(&info)?;
    let av = AddressVector::new(&domain)?;
    let cq = CompletionQueue::new(&domain, 2 * (8 + 8), None)?;
    let alice = Endpoint::builder(&domain, &info).cq(&cq).av(&av).enable()?;
    let bob = Endpoint::builder(&domain, &info).cq(&cq).av(&av).enable()?;
    let to = av.insert(&bob.name())?;
    // A message: both buffers move in, and come back with their completions.
    bob.recv(Memory::zeroed(64)?, "bob received")?;
    alice.send(bytes(b"hello")?, to, Options::NONE, "alice sent")?;
    // A write: what alice must know of bob's memory is in a descriptor of 32 bytes.
    let registered = domain.register(Memory::zeroed(4096)?, Access::WRITE);
    let region = registered.map_err(|(error, _memory)| error)?;
    let far = RemoteRegion::parse(&region.descriptor()?)?.slice(100, 8)?;
    alice.write(bytes(b"by alice")?, to, far, Options::NONE, "alice wrote")?;
    for _ in 0..3 {
        let done = cq.read_wait(TIMEOUT)?;
        let len = done.result.map_err(|failure| failure.error)?.len;
        pr_info!("{}: {len} bytes over {}\n", done.context, info.provider);
    }
    show(&region)
}

/// Prints what was written.
fn show(region: &MemoryRegion) -> Result {
    let mut found = [0; 8];
    region.read_at(100, &mut found)?;
    pr_info!("bob's memory reads \"{}\"\n", BStr::from_bytes(&found));
    Ok(())
}

/// A copy of `text`, to be moved into an operation.
fn bytes(text: &[u8]) -> Result<Memory> {
    let mut copy = KVVec::new();
    copy.extend_from_slice(text, GFP_KERNEL)?;
    Ok(Memory::from_vec(copy))
}

struct Hello;

impl kernel::Module for Hello {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        hello()?;
        Ok(Hello)
    }
}
