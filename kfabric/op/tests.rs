// SPDX-License-Identifier: GPL-2.0

//! What an operation tells of itself, and which bytes are its own.

use kernel::prelude::*;

#[kunit_tests(kfabric_op)]
mod op {
    use super::super::testing::{done, request, Bench};
    use super::super::*;
    use crate::memory::Memory;
    use crate::proto::key::Key;
    use crate::proto::range::Range;

    const MAX: usize = usize::MAX;

    /// Offsets and lengths against 16 local bytes, and whether they are inside.
    const BOUNDS: [(usize, usize, bool); 10] = [
        (0, 0, true),
        (0, 16, true),
        (0, 17, false),
        (1, 16, false),
        (15, 1, true),
        (15, 2, false),
        (16, 0, true),
        (16, 1, false),
        (MAX, 0, false),
        (MAX, 2, false),
    ];

    /// Bytes that count from `first` on.
    fn counting(first: u8, len: usize) -> Result<Memory> {
        let mut bytes = KVVec::with_capacity(len, GFP_KERNEL)?;
        for i in 0..len {
            bytes.push(first.wrapping_add(i as u8), GFP_KERNEL)?;
        }
        Ok(Memory::from_vec(bytes))
    }

    /// The 16 bytes from the 8th of 64, which count.
    fn some_of_owned() -> Result<Buffer> {
        let ranged = Buffer::from(counting(0, 64)?).range(8, 16);
        ranged.map_err(|_| EINVAL)
    }

    fn posted(bench: &Bench<u64>, kind: Kind, buffer: Buffer) -> Result<Operation> {
        Ok(bench.post(kind, buffer, 0)?.1)
    }

    #[test]
    fn effect_is_of_what_reaches_a_peer() -> Result {
        let bench = Bench::<u64>::new(1, None)?;
        for (kind, effect) in [
            (Kind::Send, Some(Effect::Send)),
            (Kind::Recv, None),
            (Kind::Write, Some(Effect::Write)),
            (Kind::Read, Some(Effect::Read)),
            (Kind::Commit, Some(Effect::Write)),
            (Kind::Atomic, Some(Effect::Write)),
            (Kind::RemoteWrite, None),
        ] {
            let op = posted(&bench, kind, Buffer::empty())?;
            assert_eq!(op.effect(), effect);
            assert_eq!((op.kind(), op.told_kind()), (kind, kind));
            assert_eq!(op.id().receive, kind == Kind::Recv);
            drop(op);
            drop(bench.read());
        }
        Ok(())
    }

    #[test]
    fn kinds_are_told_apart_by_their_names() {
        let kinds = [
            (Kind::Send, "send"),
            (Kind::Recv, "recv"),
            (Kind::Write, "write"),
            (Kind::Read, "read"),
            (Kind::Commit, "commit"),
            (Kind::Atomic, "atomic"),
            (Kind::RemoteWrite, "remote_write"),
        ];
        for (kind, name) in kinds {
            assert_eq!(kind.name(), name);
        }
    }

    #[test]
    fn length_is_the_peers_where_no_bytes_come_from_here() -> Result {
        let bench = Bench::<u64>::new(1, None)?;
        for (kind, remote, len) in [
            (Kind::Send, false, 16),
            (Kind::Recv, false, 16),
            (Kind::Write, true, 16),
            (Kind::Read, true, 16),
            (Kind::Commit, true, 100),
            (Kind::Atomic, true, 100),
            // Without one, what there is.
            (Kind::Commit, false, 16),
        ] {
            let slice = RemoteSlice::asked(Key::NONE, Range::new(1, 100));
            let request = Request {
                remote: remote.then_some(slice),
                buffer: some_of_owned()?,
                ..request(kind)
            };
            let (_, op) = bench.post_request(request, 0)?;
            assert_eq!((op.len(), op.is_empty()), (len, false));
            drop(op);
            drop(bench.read());
        }
        assert!(posted(&bench, Kind::Send, Buffer::empty())?.is_empty());
        Ok(())
    }

    #[test]
    fn slot_that_is_used_again_has_nothing_of_before() -> Result {
        let bench = Bench::<u64>::new(1, None)?;
        let mut before = None;
        for reserved in [false, true] {
            let request = Request {
                peer: Name::new(b"peer")?,
                remote: Some(RemoteSlice::asked(Key::NONE, Range::new(0, 1))),
                tags: Some(Tags::new(4, 1)),
                options: Options {
                    data: Some(9),
                    silent: true,
                    ..Options::NONE
                },
                buffer: some_of_owned()?,
                ..request(Kind::Recv)
            };
            let (id, mut op) = bench.post_request(request, 0)?;
            op.op().set_tag(Some(5));
            op.op().consume(Kind::Write);
            assert_eq!((op.tag(), op.told_kind()), (Some(5), Kind::RemoteWrite));
            // A failure is told.
            drop(op);
            drop(bench.read().ok_or(ENOENT)?);
            assert!(before.is_none_or(|before| before != id));
            let again = match reserved {
                true => {
                    let mut slot = bench.pool.take().ok_or(EAGAIN)?;
                    slot.op().reserve();
                    slot.arm(0)
                }
                false => posted(&bench, Kind::Recv, Buffer::empty())?,
            };
            assert!(again.id() != id && again.id().index == id.index);
            assert_eq!((again.kind(), again.told_kind()), (Kind::Recv, Kind::Recv));
            assert!(again.tag().is_none() && again.tags().is_none() && again.data().is_none());
            assert!(again.remote().is_none() && *again.peer() == Name::NONE);
            assert!(again.is_empty() && !again.options().silent);
            assert!(!again.is_consumed() && !again.is_complete());
            before = Some(again.id());
            again.dissolve();
        }
        Ok(())
    }

    #[test]
    fn tag_is_the_messages_once_it_is_met_and_its_own_before() -> Result {
        let bench = Bench::<u64>::new(2, None)?;
        let request = Request {
            tags: Some(Tags::new(4, 3)),
            ..request(Kind::Recv)
        };
        let (_, mut tagged) = bench.post_request(request, 0)?;
        let mut untagged = posted(&bench, Kind::Recv, Buffer::empty())?;
        for (met, told) in [(Some(7), 7), (None, 4), (Some(0), 0)] {
            tagged.op().set_tag(met);
            untagged.op().set_tag(met);
            assert_eq!((tagged.tag(), untagged.tag()), (Some(told), None));
            // What it takes stays.
            assert!(tagged.tags().is_some_and(|tags| tags.contains(6)));
        }
        Ok(())
    }

    #[test]
    fn local_bytes_have_bounds() -> Result {
        let bench = Bench::<u64>::new(3, None)?;
        let owned = posted(&bench, Kind::Write, some_of_owned()?)?;
        let mut injected = posted(&bench, Kind::Write, Buffer::injected(16))?;
        injected
            .op()
            .inject(&[8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23]);
        let nothing = posted(&bench, Kind::Write, Buffer::empty())?;
        let mut room = [0; 17];
        for (at, len, inside) in BOUNDS {
            for op in [&owned, &injected] {
                let to = &mut room[..len.min(17)];
                to.fill(0xff);
                let read = op.read_local(at, to);
                assert_eq!(read, if inside { Ok(()) } else { Err(EINVAL) });
                let expected = |i| if inside { 8 + (at + i) as u8 } else { 0xff };
                assert!(to.iter().enumerate().all(|(i, byte)| *byte == expected(i)));
            }
            let fits = at == 0 && len == 0;
            assert_eq!(nothing.read_local(at, &mut room[..len]).is_ok(), fits);
            // Nothing is written to what others hold; no bytes go anywhere.
            let written = owned.write_local(at, &[8; 17][..len]);
            assert_eq!(written.is_ok(), inside || len == 0);
            for op in [&injected, &nothing] {
                let written = op.write_local(at, &room[..len]);
                assert_eq!(written.is_ok(), len == 0);
            }
            // Of an iterator no byte is beyond them either.
            let found = [
                owned.local_dest(at, len, |_| ()),
                owned.local_source(at, len, |_| ()),
            ];
            assert!(found.iter().all(|found| found.is_ok() == inside));
            for op in [&injected, &nothing] {
                assert_eq!(op.local_dest(at, len, |_| ()), Err(EINVAL));
                assert_eq!(op.local_source(at, len, |_| ()), Err(EINVAL));
            }
            // As they were, for the next.
            for i in 0..16 {
                owned.write_local(i, &[8 + i as u8])?;
            }
        }
        // No byte beside them was stored to.
        drop((owned, injected, nothing));
        let memory = bench.read().ok_or(ENOENT)?.buffer.into_memory();
        let memory = memory.map_err(|_| EINVAL)?;
        let bytes = memory.as_slice().ok_or(EINVAL)?;
        assert!((0..).zip(bytes).all(|(i, byte)| *byte == i));
        Ok(())
    }

    #[test]
    fn injected_bytes_are_a_copy_that_nobody_gets_back() -> Result {
        let bench = Bench::<u64>::new(1, None)?;
        let mut bytes = [0xa5; INJECT_SIZE + 1];
        for len in [0, 1, INJECT_SIZE - 1, INJECT_SIZE, INJECT_SIZE + 1] {
            let mut op = posted(&bench, Kind::Send, Buffer::injected(len))?;
            bytes[0] = len as u8;
            op.op().inject(&bytes[..len]);
            let room = Memory::zeroed(len + 2)?.expose();
            let fits = len <= INJECT_SIZE;
            assert_eq!(op.copy_out(&room, 1).is_ok(), fits);
            assert_eq!(op.copy_out(&room, 3), Err(EINVAL));
            let room = room.into_memory();
            let moved = &room.as_slice().ok_or(EINVAL)?[1..=len];
            let expected = if fits {
                &bytes[..len]
            } else {
                &[0; INJECT_SIZE + 1][..]
            };
            assert!(moved == expected);
            assert!(op.op().take_buffer().is_empty());
            drop(op);
            drop(bench.read());
        }
        Ok(())
    }

    #[test]
    fn bytes_are_copied_from_and_to_their_own_place() -> Result {
        let bench = Bench::<u64>::new(2, None)?;
        let nothing = posted(&bench, Kind::Write, Buffer::empty())?;
        let op = posted(&bench, Kind::Write, some_of_owned()?)?;
        let peer = counting(100, 20)?.expose();
        for (offset, inside) in [(0, true), (4, true), (5, false), (20, false), (MAX, false)] {
            assert_eq!(op.copy_in(&peer, offset).is_ok(), inside);
            if inside {
                let mut byte = [0];
                for at in [0, 15] {
                    op.read_local(at, &mut byte)?;
                    assert_eq!(usize::from(byte[0]), 100 + offset + at);
                }
            }
            // There are none, so none is out of bounds.
            assert_eq!(nothing.copy_in(&peer, offset), Ok(()));
            assert_eq!(nothing.copy_out(&peer, offset), Ok(()));
        }
        op.write_local(15, &[1])?;
        for (offset, inside) in [(4, true), (5, false), (MAX, false)] {
            assert_eq!(op.copy_out(&peer, offset).is_ok(), inside);
        }
        let mut bytes = [0; 6];
        peer.read_at(0, &mut bytes)?;
        assert_eq!(bytes, [100, 101, 102, 103, 104, 105]);
        peer.read_at(14, &mut bytes)?;
        assert_eq!(bytes, [114, 115, 116, 117, 118, 1]);
        Ok(())
    }

    #[test]
    fn success_of_too_little_becomes_a_failure_and_a_failure_stays() -> Result {
        let bench = Bench::<u64>::new(1, None)?;
        let mut op = posted(&bench, Kind::Write, Buffer::empty())?;
        let failure = Err(Failure::not_executed(EIO));
        for (status, weakened) in [
            (done(5), Err(Failure::after(Level::Delivered, EPROTO))),
            (failure, failure),
        ] {
            op.op().end(status);
            op.op().weakened();
            assert!(op.is_complete() && !op.is_success());
            assert_eq!(*op.status(), weakened);
        }
        op.deliver();
        Ok(())
    }
}
