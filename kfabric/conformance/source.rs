// SPDX-License-Identifier: GPL-2.0

//! Memory of each source: one vector, several, parts of pages, a scatterlist.

use crate::check;
use crate::close::closed;
use crate::rig::pattern;
use kernel::page::PAGE_SIZE;
use kernel::prelude::*;
use kfabric::prelude::*;

/// What memory is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Source {
    One,
    Vecs,
    Pages,
    Table,
}

pub(crate) const SOURCES: [Source; 4] = [Source::One, Source::Vecs, Source::Pages, Source::Table];

/// `1 << order` pages of value 0.
pub(crate) fn folio(order: u32) -> Result<Folio> {
    Ok(Folio::zeroed(order)?)
}

/// Vectors of these lengths, of value 0.
pub(crate) fn vecs(lens: impl Iterator<Item = usize>) -> Result<KVec<KVVec<u8>>> {
    let mut vecs = KVec::new();
    for len in lens {
        vecs.push(KVVec::zeroed(len, GFP_KERNEL)?, GFP_KERNEL)?;
    }
    Ok(vecs)
}

/// Memory of vectors of these lengths, of value 0.
pub(crate) fn of_vecs(lens: &[usize]) -> Result<Memory> {
    closed(Memory::from_vecs(vecs(lens.iter().copied())?))
}

/// Memory of `len` bytes of value 0 that is cut in odd places.
pub(crate) fn made_of(source: Source, len: usize) -> Result<Memory> {
    // No more than 256 pieces, and some for short ones too.
    let most = (len / 200).max(3);
    match source {
        Source::One => Memory::zeroed(len),
        Source::Vecs => {
            let (mut lens, mut left, mut next) = (KVec::new(), len, 1);
            while left > 0 {
                lens.push(left.min(next), GFP_KERNEL)?;
                left -= left.min(next);
                next = (next * 2 + 1).min(most);
            }
            of_vecs(&lens)
        }
        Source::Pages => {
            let (mut parts, mut left, mut offset) = (KVec::new(), len, PAGE_SIZE - 1);
            while left > 0 {
                // Of one page, then of two, and so on.
                let folio = folio(parts.len() as u32 % 3)?;
                let len = left.min(folio.len() - offset);
                parts.push(BioVec { folio, offset, len }, GFP_KERNEL)?;
                left -= len;
                offset = (offset * 7 + 3) % 1000;
            }
            closed(Memory::from_bio_vecs(parts))
        }
        Source::Table => {
            const OFFSET: usize = 4001;
            let (mut folios, mut room) = (KVVec::new(), 0);
            while room < OFFSET + len {
                let folio = folio(folios.len() as u32 % 2)?;
                room += folio.len();
                folios.push(folio, GFP_KERNEL)?;
            }
            // Pages that follow each other become one entry.
            let list = closed(ScatterList::new(folios, OFFSET, len, u32::MAX))?;
            check!(list.entries() <= (OFFSET + len).div_ceil(PAGE_SIZE));
            closed(Memory::from_scatterlist(list))
        }
    }
}

/// Memory that is made so, with a pattern in it.
pub(crate) fn patterned(source: Source, len: usize, seed: u64) -> Result<Memory> {
    let (mut memory, pattern) = (made_of(source, len)?, pattern(len, seed)?);
    memory.write_at(0, pattern.as_slice().ok_or(EINVAL)?)?;
    Ok(memory)
}

/// Takes a buffer back, and changes all of its bytes.
pub(crate) fn spoilt(buffer: Buffer) -> Result<Memory> {
    static OTHERS: [u8; PAGE_SIZE] = [0xee; PAGE_SIZE];
    let mut memory = buffer.into_memory().map_err(|_| EINVAL)?;
    for at in (0..memory.len()).step_by(PAGE_SIZE) {
        let len = PAGE_SIZE.min(memory.len() - at);
        memory.write_at(at, &OTHERS[..len])?;
    }
    Ok(memory)
}
