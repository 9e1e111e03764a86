// SPDX-License-Identifier: GPL-2.0

//! A load: the buffers of one measurement, and the operations on them.

use crate::copies::Copies;
use crate::rig::Rig;
use kernel::page::PAGE_SIZE;
use kernel::prelude::*;
use kfabric::prelude::*;

/// How long a region may be busy, in milliseconds: the worker that made the last access may be on
/// its way out of it.
const TIMEOUT: u32 = 1000;

/// So many buffers, each at the start of a page, on the near side, A's, and on the far side, B's.
pub(crate) struct Load<'a> {
    rig: &'a Rig,
    kind: Kind,
    len: usize,
    near: KVec<Buffer>,
    /// Of messages.
    far: KVec<Buffer>,
    /// Of RMA.
    regions: KVec<MemoryRegion>,
    remotes: KVec<RemoteSlice>,
}

impl<'a> Load<'a> {
    /// Allocates `depth` buffers on both sides, of which `len` bytes are used. Sleeps.
    pub(crate) fn new(rig: &'a Rig, kind: Kind, len: usize, depth: usize) -> Result<Self> {
        let mut load = Load {
            rig,
            kind,
            len,
            near: KVec::new(),
            far: KVec::new(),
            regions: KVec::new(),
            remotes: KVec::new(),
        };
        for _ in 0..depth {
            let (near, far) = pair(len)?;
            load.near.push(part(near, len)?, GFP_KERNEL)?;
            if kind == Kind::Send {
                load.far.push(part(far, len)?, GFP_KERNEL)?;
                continue;
            }
            let registered = rig.domain.register(far, Access::READ_WRITE);
            let region = registered.map_err(|(error, _memory)| error)?;
            let remote = RemoteRegion::parse(&region.descriptor()?)?;
            load.remotes
                .push(remote.slice(0, len as u64)?, GFP_KERNEL)?;
            load.regions.push(region, GFP_KERNEL)?;
        }
        Ok(load)
    }

    /// How many completions an operation has: a message has that of its receive, too.
    pub(crate) fn completions(&self) -> usize {
        match self.kind {
            Kind::Send => 2,
            _ => 1,
        }
    }

    /// Takes the buffers of a number, to be posted.
    #[inline(always)]
    pub(crate) fn take(&mut self, at: usize) -> (Buffer, Buffer) {
        let take = |side: &mut KVec<Buffer>| side.get_mut(at).map(core::mem::take);
        (
            take(&mut self.near).unwrap_or_default(),
            take(&mut self.far).unwrap_or_default(),
        )
    }

    /// Posts the operation of a number; a buffer on the far side is taken if it is a message.
    #[inline(always)]
    pub(crate) fn post(&self, at: usize, near: Buffer, far: &mut Buffer) -> Result {
        let Rig { a, b, to_b, .. } = self.rig;
        match self.kind {
            Kind::Send => {
                b.recv(core::mem::take(far), at)?;
                a.send(near, *to_b, Options::default(), at)?;
            }
            Kind::Read => {
                a.read(near, *to_b, self.remotes[at], Options::default(), at)?;
            }
            _ => {
                a.write(near, *to_b, self.remotes[at], Options::default(), at)?;
            }
        }
        Ok(())
    }

    /// Puts the buffer of a completion back. The error of the operation, if it failed.
    #[inline(always)]
    pub(crate) fn put(&mut self, done: Completion<usize>) -> Result {
        let side = match done.kind {
            Kind::Recv => &mut self.far,
            _ => &mut self.near,
        };
        *side.get_mut(done.context).ok_or(EINVAL)? = done.buffer;
        done.result.map(|_| ()).map_err(|failure| failure.error)
    }

    /// Posts all operations, then reads all completions.
    #[inline]
    pub(crate) fn round(&mut self) -> Result {
        for at in 0..self.near.len() {
            let (near, mut far) = self.take(at);
            self.post(at, near, &mut far)?;
        }
        for _ in 0..self.near.len() * self.completions() {
            let done = self.rig.next()?;
            self.put(done)?;
        }
        Ok(())
    }

    /// Gives the buffers back, for plain copies in the direction of the operations. Sleeps.
    pub(crate) fn into_copies(self) -> Result<Copies> {
        let (mut near, mut far) = (KVec::new(), KVec::new());
        for buffer in self.near {
            near.push(buffer.into_memory().map_err(|_| EINVAL)?, GFP_KERNEL)?;
        }
        for buffer in self.far {
            far.push(buffer.into_memory().map_err(|_| EINVAL)?, GFP_KERNEL)?;
        }
        for region in self.regions {
            let memory = region.close_wait(TIMEOUT).map_err(|(error, _)| error)?;
            far.push(memory, GFP_KERNEL)?;
        }
        Ok(match self.kind {
            Kind::Read => Copies::new(far, near, self.len),
            _ => Copies::new(near, far, self.len),
        })
    }
}

/// Two pieces of memory with room for `len` bytes each, the first at the lower address.
///
/// Each is a page at least, and so begins with one: what a copy executes depends on where its bytes
/// are, and is to be the same each time.
fn pair(len: usize) -> Result<(Memory, Memory)> {
    let room = len.max(PAGE_SIZE);
    let (one, other) = (Memory::zeroed(room)?, Memory::zeroed(room)?);
    let place = |memory: &Memory| memory.as_slice().map(|bytes| bytes.as_ptr().addr());
    Ok(match place(&one) < place(&other) {
        true => (one, other),
        false => (other, one),
    })
}

/// `len` bytes of some memory.
fn part(memory: Memory, len: usize) -> Result<Buffer> {
    Buffer::from(memory).range(0, len).map_err(|_| EINVAL)
}
