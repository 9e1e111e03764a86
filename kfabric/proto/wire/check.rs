// SPDX-License-Identifier: GPL-2.0

//! What the fields of a kind may be.

use super::super::atomic::{Action, AtomicOp, Datatype};
use super::{verdict, Flags, Header, Kind, Malformed, Reason, MAX_ANNOUNCEMENT};

/// Which fields a kind has, beside `len`, `seq` and `ack`.
struct Fields {
    flags: Flags,
    context: bool,
    code: bool,
    key: bool,
    offset: bool,
    total: bool,
    data: bool,
    payload: bool,
}

const NONE: Fields = Fields {
    flags: Flags::NONE,
    context: false,
    code: false,
    key: false,
    offset: false,
    total: false,
    data: false,
    payload: false,
};

/// Which fields the kind has. `key` and `data` of a message depend on its flags.
const fn fields(kind: Kind, flags: Flags) -> Fields {
    let tagged = flags.contains(Flags::TAGGED);
    let data = flags.contains(Flags::DATA);
    let now = Flags::ACK_NOW;
    match kind {
        Kind::Hello => Fields {
            payload: true,
            ..NONE
        },
        Kind::Ack | Kind::Ping | Kind::Pong | Kind::Idle => NONE,
        Kind::Grant => Fields {
            context: true,
            total: true,
            data: true,
            ..NONE
        },
        Kind::Bye => Fields {
            code: true,
            data: true,
            ..NONE
        },
        Kind::Send | Kind::Rts => Fields {
            flags: now.union(Flags::TAGGED).union(Flags::DATA),
            context: true,
            key: tagged,
            total: true,
            data,
            payload: matches!(kind, Kind::Send),
            ..NONE
        },
        Kind::Data => Fields {
            flags: now.union(Flags::LAST),
            offset: true,
            total: true,
            payload: true,
            ..NONE
        },
        Kind::Write => Fields {
            flags: now
                .union(Flags::FIRST)
                .union(Flags::LAST)
                .union(Flags::TAGGED)
                .union(Flags::COMMIT)
                .union(Flags::DATA.when(flags.contains(Flags::LAST))),
            context: data || tagged,
            key: true,
            offset: true,
            total: true,
            data,
            payload: true,
            ..NONE
        },
        Kind::Commit => Fields {
            flags: now.union(Flags::DATA),
            context: data,
            key: true,
            offset: true,
            total: true,
            data,
            ..NONE
        },
        Kind::Read => Fields {
            flags: now.union(Flags::TAGGED),
            context: tagged,
            key: true,
            offset: true,
            total: true,
            ..NONE
        },
        Kind::Atomic => Fields {
            flags: now.union(Flags::COMMIT),
            code: true,
            key: true,
            offset: true,
            total: true,
            payload: true,
            ..NONE
        },
        Kind::Cancel => Fields { flags: now, ..NONE },
        Kind::Announce => Fields {
            flags: now,
            key: true,
            payload: true,
            ..NONE
        },
        Kind::Withdraw => Fields {
            flags: now,
            key: true,
            ..NONE
        },
        Kind::Parked | Kind::Cts | Kind::Nop => Fields { flags: now, ..NONE },
        Kind::Done => Fields {
            flags: now,
            code: true,
            total: true,
            data: true,
            ..NONE
        },
        Kind::ReadData => Fields {
            flags: now.union(Flags::LAST),
            offset: true,
            total: true,
            payload: true,
            ..NONE
        },
        Kind::AtomicData => Fields {
            flags: now.union(Flags::COMMIT),
            total: true,
            payload: true,
            ..NONE
        },
    }
}

/// Checks all that a header says by itself.
pub(super) fn check(h: &Header) -> Result<(), Malformed> {
    let has = fields(h.kind, h.flags);
    if !has.flags.contains(h.flags) {
        return Err(Malformed::Flags);
    }
    if (!has.context && h.context != 0)
        || (!has.code && h.code != 0)
        || (!has.key && h.key != 0)
        || (!has.offset && h.offset != 0)
        || (!has.total && h.total != 0)
        || (!has.data && h.data != 0)
        || (h.kind == Kind::Hello && (h.seq != 0 || h.ack != 0))
        || (!h.kind.is_about_an_op() && h.op != 0)
        || (h.len == 0 && h.payload_crc != 0)
    {
        return Err(Malformed::Reserved);
    }
    if !has.payload && h.len != 0 {
        return Err(Malformed::Len);
    }
    match h.kind {
        Kind::Grant | Kind::Bye if h.data > u32::MAX.into() => Err(Malformed::Range),
        Kind::Bye => Reason::from_code(h.code)
            .map(drop)
            .ok_or(Malformed::Verdict),
        Kind::Hello if h.len == 0 => Err(Malformed::Len),
        Kind::Send if h.total != u64::from(h.len) => Err(Malformed::Range),
        Kind::Rts if h.total == 0 => Err(Malformed::Range),
        Kind::Data if h.len == 0 => Err(Malformed::Len),
        Kind::Data | Kind::ReadData => piece(h),
        Kind::Write => write(h),
        Kind::Commit | Kind::Read => end(h.offset, h.total).map(drop),
        Kind::Atomic => atomic(h),
        Kind::Announce if !(1..=MAX_ANNOUNCEMENT).contains(&h.len) => Err(Malformed::Len),
        Kind::Done => verdict::parse(h.code, h.data).map(drop),
        Kind::AtomicData if h.len == 0 || h.total != u64::from(h.len) => Err(Malformed::Range),
        _ => Ok(()),
    }
}

/// The end of a range that fits 64 bits.
fn end(offset: u64, len: u64) -> Result<u64, Malformed> {
    offset.checked_add(len).ok_or(Malformed::Range)
}

/// A piece of a whole that begins at 0: the last one, and no other, ends where the whole does.
fn piece(h: &Header) -> Result<(), Malformed> {
    let end = end(h.offset, h.len.into())?;
    if end > h.total || (h.len == 0 && h.total != 0) {
        return Err(Malformed::Range);
    }
    if (end == h.total) != h.flags.contains(Flags::LAST) {
        return Err(Malformed::Flags);
    }
    Ok(())
}

/// A piece of a range of a region.
fn write(h: &Header) -> Result<(), Malformed> {
    let len = u64::from(h.len);
    let end = end(h.offset, len)?;
    let first = h.flags.contains(Flags::FIRST);
    let last = h.flags.contains(Flags::LAST);
    if len > h.total || (len == 0 && h.total != 0) {
        return Err(Malformed::Range);
    }
    if (first && last) != (len == h.total) {
        return Err(Malformed::Flags);
    }
    if (first && h.offset.checked_add(h.total).is_none()) || (last && end < h.total) {
        return Err(Malformed::Range);
    }
    Ok(())
}

/// What `code` says that an atomic does.
pub fn atomic_code(code: u16) -> Option<(Action, Datatype)> {
    let datatype = *Datatype::ALL.get(usize::from(code & 0xf))?;
    let op = usize::from((code >> 4) & 0xf);
    let action = match code >> 8 {
        0 => Action::Update(*AtomicOp::ALL.get(op)?),
        1 => Action::Fetch(*AtomicOp::ALL.get(op)?),
        2 if op == 0 => Action::Compare,
        _ => return None,
    };
    Some((action, datatype))
}

/// How many vectors of operands travel.
pub(in super::super) const fn operands(action: Action) -> u64 {
    match action {
        Action::Compare => 2,
        _ => 1,
    }
}

/// The `code` of an atomic.
pub(in super::super) const fn code_of(action: Action, datatype: Datatype) -> u16 {
    datatype as u16
        | match action {
            Action::Update(op) => (op as u16) << 4,
            Action::Fetch(op) => ((op as u16) << 4) | 0x100,
            Action::Compare => 0x200,
        }
}

fn atomic(h: &Header) -> Result<(), Malformed> {
    let (action, datatype) = atomic_code(h.code).ok_or(Malformed::Atomic)?;
    let size = datatype.size() as u64;
    end(h.offset, h.total)?;
    if h.total == 0 || h.total % size != 0 || h.offset % size != 0 {
        return Err(Malformed::Atomic);
    }
    if h.total.checked_mul(operands(action)) != Some(h.len.into()) {
        return Err(Malformed::Atomic);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::good;
    use super::*;

    fn with(kind: Kind, change: impl FnOnce(&mut Header)) -> Result<(), Malformed> {
        let mut header = good(kind);
        change(&mut header);
        check(&header)
    }

    /// Each field that a kind does not have is set, and seen.
    #[test]
    fn field_that_a_kind_does_not_have_is_refused() {
        for kind in Kind::ALL {
            let header = good(kind);
            let has = fields(kind, header.flags);
            type Change = fn(&mut Header);
            let table: [(bool, Change); 9] = [
                (has.context, |h| h.context = 1),
                (has.code, |h| h.code = 1),
                (has.key, |h| h.key = 1),
                (has.offset, |h| h.offset = 1),
                (has.total, |h| h.total = 1),
                (has.data, |h| h.data = 1),
                (kind != Kind::Hello, |h| h.seq = 1),
                (kind.is_about_an_op(), |h| h.op = 1),
                (kind != Kind::Hello, |h| h.ack = 1),
            ];
            for (at, (has, set)) in table.into_iter().enumerate() {
                if !has {
                    assert_eq!(with(kind, set), Err(Malformed::Reserved), "{kind:?} {at}");
                }
            }
            if !has.payload {
                assert_eq!(with(kind, |h| h.len = 1), Err(Malformed::Len), "{kind:?}");
            }
            for bit in 0..6 {
                let flag = Flags::from_bits(1 << bit).unwrap();
                let set = with(kind, |h| h.flags |= flag);
                if !fields(kind, header.flags | flag).flags.contains(flag) {
                    assert_eq!(set, Err(Malformed::Flags), "{kind:?} {flag:?}");
                }
            }
        }
    }

    #[test]
    fn last_piece_and_no_other_ends_the_whole() {
        let last = Flags::LAST;
        for kind in [Kind::Data, Kind::ReadData] {
            let table = [
                (0, 8, 32, Flags::NONE, Ok(())),
                (24, 8, 32, last, Ok(())),
                (24, 8, 32, Flags::NONE, Err(Malformed::Flags)),
                (16, 8, 32, last, Err(Malformed::Flags)),
                (25, 8, 32, last, Err(Malformed::Range)),
                (u64::MAX, 8, 32, last, Err(Malformed::Range)),
                (u64::MAX - 8, 8, u64::MAX, last, Ok(())),
            ];
            for (offset, len, total, flags, expected) in table {
                let found = with(kind, |h| {
                    (h.offset, h.len, h.total, h.flags) = (offset, len, total, flags);
                });
                assert_eq!(found, expected, "{kind:?} {offset} {len} {total} {flags:?}");
            }
        }
        // Nothing can be read in one piece, but no empty piece can be part of something.
        let empty = |h: &mut Header| (h.offset, h.len, h.total, h.flags) = (0, 0, 0, last);
        assert_eq!(with(Kind::ReadData, empty), Ok(()));
        assert_eq!(with(Kind::Data, empty), Err(Malformed::Len));
        let hollow = |h: &mut Header| (h.offset, h.len, h.total) = (8, 0, 32);
        assert_eq!(with(Kind::ReadData, hollow), Err(Malformed::Range));
    }

    #[test]
    fn pieces_of_a_write_stay_within_64_bits() {
        let (first, last) = (Flags::FIRST, Flags::LAST);
        let both = first | last;
        let max = u64::MAX;
        let table = [
            (0, 0, 0, both, Ok(())),
            (0, 0, 0, first, Err(Malformed::Flags)),
            (0, 0, 1, first, Err(Malformed::Range)),
            (9, 8, 8, both, Ok(())),
            (9, 8, 8, first, Err(Malformed::Flags)),
            (9, 8, 9, both, Err(Malformed::Flags)),
            (9, 8, 7, first, Err(Malformed::Range)),
            (max - 32, 8, 32, first, Ok(())),
            (max - 31, 8, 32, first, Err(Malformed::Range)),
            // A middle piece, and the last: the range can't begin below 0.
            (0, 8, 32, Flags::NONE, Ok(())),
            (24, 8, 32, last, Ok(())),
            (23, 8, 32, last, Err(Malformed::Range)),
            (max - 8, 8, 32, last, Ok(())),
            (max - 7, 8, 32, last, Err(Malformed::Range)),
        ];
        for (offset, len, total, flags, expected) in table {
            let found = with(Kind::Write, |h| {
                (h.offset, h.len, h.total, h.flags) = (offset, len, total, flags);
            });
            assert_eq!(found, expected, "{offset} {len} {total} {flags:?}");
        }
        let data = with(Kind::Write, |h| {
            (h.len, h.total, h.flags, h.data) = (8, 8, both | Flags::DATA, 1);
        });
        assert_eq!(data, Ok(()));
    }

    #[test]
    fn tag_stands_where_the_flag_says_so() {
        let tags = [0, 1, 1 << 32, u64::MAX];
        for kind in [Kind::Send, Kind::Rts] {
            for tag in tags {
                let tagged = with(kind, |h| (h.flags, h.key) = (Flags::TAGGED, tag));
                assert_eq!(tagged, Ok(()), "{kind:?} {tag:#x}");
                let both = Flags::TAGGED | Flags::DATA;
                let with_data = with(kind, |h| (h.flags, h.key, h.data) = (both, tag, !tag));
                assert_eq!(with_data, Ok(()), "{kind:?} {tag:#x}");
                let bare = match tag {
                    0 => Ok(()),
                    _ => Err(Malformed::Reserved),
                };
                assert_eq!(with(kind, |h| h.key = tag), bare, "{kind:?} {tag:#x}");
            }
        }
        // A tag in the place of a key; all others have neither.
        for kind in Kind::ALL {
            let may = matches!(kind, Kind::Send | Kind::Rts | Kind::Write | Kind::Read);
            let expected = if may { Ok(()) } else { Err(Malformed::Flags) };
            let tagged = with(kind, |h| h.flags |= Flags::TAGGED);
            assert_eq!(tagged, expected, "{kind:?}");
        }
    }

    #[test]
    fn ranges_and_counts_of_the_others_are_bounded() {
        let range = Err(Malformed::Range);
        for kind in [Kind::Read, Kind::Commit] {
            let max = u64::MAX;
            assert_eq!(with(kind, |h| (h.offset, h.total) = (max - 1, 1)), Ok(()));
            assert_eq!(with(kind, |h| (h.offset, h.total) = (max, 1)), range);
        }
        for kind in [Kind::Grant, Kind::Bye] {
            assert_eq!(with(kind, |h| h.data = u32::MAX.into()), Ok(()));
            assert_eq!(with(kind, |h| h.data = 1 << 32), range);
        }
        assert_eq!(with(Kind::Send, |h| h.total = 65), range);
        assert_eq!(with(Kind::Rts, |h| h.total = 0), range);
        assert_eq!(with(Kind::AtomicData, |h| h.total = 9), range);
        for (len, good) in [(0, false), (1, true), (256, true), (257, false)] {
            assert_eq!(with(Kind::Announce, |h| h.len = len).is_ok(), good, "{len}");
        }
        assert_eq!(with(Kind::Bye, |h| h.code = 8), Err(Malformed::Verdict));
        assert_eq!(with(Kind::Done, |h| h.code = 1), Err(Malformed::Verdict));
    }

    #[test]
    fn atomics_have_whole_aligned_words_and_their_operands() {
        // Sum of u64: update, fetch; compare.
        let table = [
            (0x017, 8, 8, 8, true),
            (0x117, 8, 8, 8, true),
            (0x207, 8, 8, 16, true),
            (0x207, 8, 8, 8, false),
            (0x217, 8, 8, 16, false),
            (0x317, 8, 8, 8, false),
            (0x018, 8, 8, 8, false),
            (0x077, 8, 8, 8, false),
            (0x017, 4, 8, 8, false),
            (0x015, 4, 4, 4, true),
            (0x017, 8, 12, 12, false),
            (0x017, 8, 0, 0, false),
            (0x010, 3, 5, 5, true),
        ];
        for (code, offset, total, len, good) in table {
            let found = with(Kind::Atomic, |h| {
                (h.code, h.offset, h.total, h.len) = (code, offset, total, len);
            });
            assert_eq!(found.is_ok(), good, "{code:#x} {offset} {total} {len}");
        }
        let huge = with(Kind::Atomic, |h| (h.code, h.total) = (0x207, 1 << 63));
        assert_eq!(huge, Err(Malformed::Atomic));
    }

    #[test]
    fn codes_of_atomics_are_read_as_written() {
        let mut known = 0;
        for code in 0..=u16::MAX {
            if let Some((action, datatype)) = atomic_code(code) {
                assert_eq!(code_of(action, datatype), code);
                known += 1;
            }
        }
        assert_eq!(known, 8 * (7 + 7 + 1));
    }
}
