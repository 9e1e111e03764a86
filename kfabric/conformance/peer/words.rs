// SPDX-License-Identifier: GPL-2.0

//! Words: what two suites say to each other, as bytes.
//!
//! A number has eight bytes, least significant first; bytes follow their number, or are all zero and
//! are only counted. Everything else consists of these, one after the other.

use crate::rig::Receive;
use kernel::prelude::*;
use kfabric::prelude::*;

/// The most bytes that are said at once.
pub(super) const MOST: usize = (1 << 20) + (64 << 10);

/// The most bytes that are all zero.
const MOST_ZEROS: usize = 64 << 20;

/// A copy of some bytes.
pub(super) fn copy(bytes: &[u8]) -> Result<KVVec<u8>> {
    let mut copy = KVVec::with_capacity(bytes.len(), GFP_KERNEL)?;
    copy.extend_from_slice(bytes, GFP_KERNEL)?;
    Ok(copy)
}

/// What is about to be said.
pub(super) struct Saying(KVVec<u8>);

impl Saying {
    pub(super) fn new() -> Self {
        Saying(KVVec::new())
    }

    /// The bytes. `EXDEV`: there are too many: what they are of needs both ends on one host.
    pub(super) fn into_bytes(self) -> Result<KVVec<u8>> {
        match self.0.len() <= MOST {
            true => Ok(self.0),
            false => Err(EXDEV),
        }
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) -> Result {
        let is_zero = bytes.iter().all(|byte| *byte == 0);
        if is_zero && bytes.len() > MOST_ZEROS {
            return Err(EXDEV);
        }
        bytes.len().say(self)?;
        is_zero.say(self)?;
        match is_zero {
            true => Ok(()),
            false => Ok(self.0.extend_from_slice(bytes, GFP_KERNEL)?),
        }
    }
}

/// What was heard, and has still to be understood.
pub(super) struct Heard<'a>(&'a [u8]);

impl<'a> Heard<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Heard(bytes)
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(EBADMSG)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn bytes(&mut self) -> Result<KVVec<u8>> {
        let (len, is_zero) = <(usize, bool)>::hear(self)?;
        if len > if is_zero { MOST_ZEROS } else { MOST } {
            return Err(EBADMSG);
        }
        let mut bytes = KVVec::zeroed(len, GFP_KERNEL)?;
        if !is_zero {
            bytes.copy_from_slice(self.take(len)?);
        }
        Ok(bytes)
    }
}

/// What can be said.
pub(super) trait Word: Sized {
    fn say(&self, to: &mut Saying) -> Result;

    /// `EBADMSG`: that is none.
    fn hear(from: &mut Heard<'_>) -> Result<Self>;
}

impl Word for u64 {
    fn say(&self, to: &mut Saying) -> Result {
        Ok(to.0.extend_from_slice(&self.to_le_bytes(), GFP_KERNEL)?)
    }

    fn hear(from: &mut Heard<'_>) -> Result<Self> {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(from.take(8)?);
        Ok(u64::from_le_bytes(bytes))
    }
}

impl Word for () {
    fn say(&self, _to: &mut Saying) -> Result {
        Ok(())
    }

    fn hear(_from: &mut Heard<'_>) -> Result<Self> {
        Ok(())
    }
}

impl Word for KVVec<u8> {
    fn say(&self, to: &mut Saying) -> Result {
        to.bytes(self)
    }

    fn hear(from: &mut Heard<'_>) -> Result<Self> {
        from.bytes()
    }
}

impl<T: Word> Word for Option<T> {
    fn say(&self, to: &mut Saying) -> Result {
        self.is_some().say(to)?;
        self.as_ref().map_or(Ok(()), |value| value.say(to))
    }

    fn hear(from: &mut Heard<'_>) -> Result<Self> {
        bool::hear(from)?.then(|| T::hear(from)).transpose()
    }
}

impl<T: Word, E: Word> Word for Result<T, E> {
    fn say(&self, to: &mut Saying) -> Result {
        self.is_ok().say(to)?;
        match self {
            Ok(value) => value.say(to),
            Err(error) => error.say(to),
        }
    }

    fn hear(from: &mut Heard<'_>) -> Result<Self> {
        Ok(match bool::hear(from)? {
            true => Ok(T::hear(from)?),
            false => Err(E::hear(from)?),
        })
    }
}

macro_rules! tuples {
    ($(($($part:ident $index:tt),*))*) => {$(
        impl<$($part: Word),*> Word for ($($part,)*) {
            fn say(&self, to: &mut Saying) -> Result {
                $(self.$index.say(to)?;)*
                Ok(())
            }

            fn hear(from: &mut Heard<'_>) -> Result<Self> {
                Ok(($($part::hear(from)?,)*))
            }
        }
    )*};
}

tuples! {
    (A 0, B 1)
    (A 0, B 1, C 2)
    (A 0, B 1, C 2, D 3)
    (A 0, B 1, C 2, D 3, E 4)
}

/// What is said as a number: how it becomes one, if it is one that is known here, and comes of one.
macro_rules! numbers {
    ($($type:ty: $to:expr, $from:expr;)*) => {$(
        impl Word for $type {
            fn say(&self, to: &mut Saying) -> Result {
                let number: fn(&$type) -> Option<u64> = $to;
                number(self).ok_or(EINVAL)?.say(to)
            }

            fn hear(from: &mut Heard<'_>) -> Result<Self> {
                let value: fn(u64) -> Option<$type> = $from;
                value(u64::hear(from)?).ok_or(EBADMSG)
            }
        }
    )*};
}

const KINDS: [Kind; 8] = [
    Kind::Send,
    Kind::Recv,
    Kind::Write,
    Kind::Read,
    Kind::Commit,
    Kind::Atomic,
    Kind::RemoteWrite,
    Kind::RemoteRead,
];
const LEVELS: [Level; 3] = [Level::Transmit, Level::Delivered, Level::Committed];
const OUTCOMES: [Outcome; 3] = [Outcome::NotExecuted, Outcome::Executed, Outcome::Unknown];
const TYPES: [EndpointType; 2] = [EndpointType::Rdm, EndpointType::Msg];
const ORDERS: [Order; 9] = [
    Order::RAR,
    Order::RAW,
    Order::RAS,
    Order::WAR,
    Order::WAW,
    Order::WAS,
    Order::SAR,
    Order::SAW,
    Order::SAS,
];

/// The number of one of these.
fn place<T: PartialEq>(all: &[T], one: &T) -> Option<u64> {
    let at = all.iter().position(|other| other == one)?;
    Some(at as u64)
}

/// The one of these that has a number.
fn nth<T: Copy>(all: &[T], number: u64) -> Option<T> {
    all.get(usize::try_from(number).ok()?).copied()
}

numbers! {
    bool: |is| Some(u64::from(*is)), |n| (n < 2).then_some(n == 1);
    u8: |n| Some(u64::from(*n)), |n| n.try_into().ok();
    u32: |n| Some(u64::from(*n)), |n| n.try_into().ok();
    i32: |n| Some(u64::from(*n as u32)), |n| u32::try_from(n).ok().map(|n| n as i32);
    usize: |n| Some(*n as u64), |n| n.try_into().ok();
    Error: |error| Some(u64::from(error.to_errno().unsigned_abs())),
        |n| (1..4096).contains(&n).then(|| Error::from_errno(-(n as i32)));
    Address: |address| Some(address.raw()), |n| Some(Address::from_raw(n));
    Access: |access| Some(access.bits().into()), |n| Access::from_bits(n.try_into().ok()?);
    Caps: |caps| Some(caps.bits()), |n| {
        let caps = Caps::ALL.each().filter(|cap| n & cap.bits() != 0);
        (n & !Caps::ALL.bits() == 0).then(|| caps.fold(Caps::NONE, Caps::union))
    };
    Order: |order| {
        let held = ORDERS.iter().enumerate().filter(|(_, one)| order.contains(**one));
        Some(held.fold(0, |bits, (n, _)| bits | 1 << n))
    }, |bits| {
        let held = ORDERS.iter().enumerate().filter(|(n, _)| bits & 1 << n != 0);
        (bits >> ORDERS.len() == 0).then(|| held.fold(Order::NONE, |order, (_, one)| order.union(*one)))
    };
    Kind: |kind| place(&KINDS, kind), |n| nth(&KINDS, n);
    Level: |level| place(&LEVELS, level), |n| nth(&LEVELS, n);
    Outcome: |outcome| place(&OUTCOMES, outcome), |n| nth(&OUTCOMES, n);
    Datatype: |datatype| place(&Datatype::ALL, datatype), |n| nth(&Datatype::ALL, n);
    Action: |action| match action {
        Action::Compare => Some(0),
        Action::Update(op) => Some(1 + 2 * place(&AtomicOp::ALL, op)?),
        Action::Fetch(op) => Some(2 + 2 * place(&AtomicOp::ALL, op)?),
    }, |n| {
        let Some(n) = n.checked_sub(1) else {
            return Some(Action::Compare);
        };
        let op = nth(&AtomicOp::ALL, n / 2)?;
        Some(if n % 2 == 0 { Action::Update(op) } else { Action::Fetch(op) })
    };
    EndpointType: |endpoints| place(&TYPES, endpoints), |n| nth(&TYPES, n);
}

/// What consists of fields that can be said.
macro_rules! records {
    ($($type:ident { $($field:ident),* })*) => {$(
        impl Word for $type {
            fn say(&self, to: &mut Saying) -> Result {
                $(self.$field.say(to)?;)*
                Ok(())
            }

            fn hear(from: &mut Heard<'_>) -> Result<Self> {
                $(let $field = Word::hear(from)?;)*
                Ok($type { $($field),* })
            }
        }
    )*};
}

records! {
    Receive { from, tags, access }
    Limits { max_msg_size, max_atomic_size, tx_size, rx_size, tx_contexts, rx_contexts, inject_size }
    Options { level, data, fence, silent, more }
    AtomicAction { action, datatype }
    RegionAttributes { access, uncached, persistent }
    Success { len, data, level }
    Failure { error, provider, outcome, level }
    Part { offset, released }
}

impl Word for Name {
    fn say(&self, to: &mut Saying) -> Result {
        to.bytes(self.as_bytes())
    }

    fn hear(from: &mut Heard<'_>) -> Result<Self> {
        Name::new(&from.bytes()?).map_err(|_| EBADMSG)
    }
}

/// The bytes of a buffer, and which of them are used.
pub(super) struct Carried {
    /// None, of a buffer without memory.
    bytes: Option<KVVec<u8>>,
    offset: usize,
    len: usize,
}

impl Carried {
    /// A copy of what is in a buffer, and the buffer. `EXDEV`: it is a region's slice, or of several pieces.
    pub(super) fn copy(buffer: Buffer) -> (Result<Self>, Buffer) {
        let (offset, len) = (buffer.offset(), buffer.len());
        let (bytes, buffer) = match buffer.into_memory() {
            Ok(memory) => {
                let bytes = memory.as_slice().ok_or(EXDEV).and_then(copy).map(Some);
                (bytes, Buffer::from(memory))
            }
            Err(buffer) => match buffer.into_slice() {
                Ok(slice) => (Err(EXDEV), Buffer::from(slice)),
                Err(buffer) => (Ok(None), buffer),
            },
        };
        let carried = bytes.map(|bytes| Carried { bytes, offset, len });
        // It was of this range.
        let buffer = buffer.range(offset, len).unwrap_or_else(|buffer| buffer);
        (carried, buffer)
    }

    /// What is in a buffer. `EXDEV`: it is a region's slice, or of several pieces.
    pub(super) fn from(buffer: Buffer) -> Result<Self> {
        let (offset, len) = (buffer.offset(), buffer.len());
        let bytes = match buffer.into_memory() {
            Ok(memory) => Some(memory.into_vec().map_err(|_| EXDEV)?),
            Err(buffer) => match buffer.into_slice() {
                Ok(_) => return Err(EXDEV),
                Err(_) => None,
            },
        };
        Ok(Carried { bytes, offset, len })
    }

    /// A buffer of these bytes. `EBADMSG`: those that are used are not among them.
    pub(super) fn into_buffer(self) -> Result<Buffer> {
        let Some(bytes) = self.bytes else {
            return Ok(Buffer::empty());
        };
        let buffer = Buffer::from(Memory::from_vec(bytes));
        buffer.range(self.offset, self.len).map_err(|_| EBADMSG)
    }
}

records! { Carried { bytes, offset, len } }

/// A completion, whose buffer is carried.
pub(super) struct Ended {
    kind: Kind,
    context: u64,
    buffer: Carried,
    tag: Option<u64>,
    result: Status,
    part: Option<Part>,
}

records! { Ended { kind, context, buffer, tag, result, part } }

impl Ended {
    pub(super) fn from(done: Completion<u64>) -> Result<Self> {
        Ok(Ended {
            kind: done.kind,
            context: done.context,
            buffer: Carried::from(done.buffer)?,
            tag: done.tag,
            result: done.result,
            part: done.part,
        })
    }

    pub(super) fn into_completion(self) -> Result<Completion<u64>> {
        Ok(Completion {
            kind: self.kind,
            context: self.context,
            buffer: self.buffer.into_buffer()?,
            tag: self.tag,
            result: self.result,
            part: self.part,
        })
    }
}
