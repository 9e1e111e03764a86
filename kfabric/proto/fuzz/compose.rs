// SPDX-License-Identifier: GPL-2.0

//! What the corpus begins with: bytes that reach far, of each target.

use super::super::access::Access;
use super::super::descriptor::{Descriptor, Flush, Persistence};
use super::super::key::Key;
use super::super::rng::Rng;
use super::super::wire::hello::{Hello, MAX, VERSIONS};
use super::super::wire::{Flags, Header, Kind};
use super::greeting;
use super::script::{name, LIMITS, STEP};

/// The files of a target.
pub(super) fn corpus(target: &str) -> Vec<Vec<u8>> {
    match target {
        "frame" => frames(),
        "session" => (0..32).map(greetings).collect(),
        "peer" => (0..96).map(compose).collect(),
        "faults" => texts(),
        "descriptor" => descriptors(),
        other => panic!("{other} has no corpus"),
    }
}

/// A good header of each kind, with checksums and without, and a hello.
fn frames() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for kind in Kind::ALL {
        let header = super::super::wire::tests::good(kind);
        for how in [0, 3] {
            let mut bytes = vec![how];
            bytes.extend(header.emit(how != 0));
            if kind == Kind::Hello {
                let hello = Hello {
                    versions: VERSIONS,
                    caps: 1,
                    incarnation: 7,
                    expects: 9,
                    last: 3,
                    generation: 2,
                    limits: LIMITS,
                    from: name(1),
                    to: name(2),
                };
                let mut out = [0; MAX];
                let len = hello.emit(&mut out);
                bytes.extend(&out[..len]);
            }
            all.push(bytes);
        }
    }
    all
}

/// Steps of a session, at random.
fn greetings(seed: u64) -> Vec<u8> {
    let mut rng = Rng::new(seed);
    let mut script = vec![seed as u8];
    script.resize(1 + 16 * greeting::STEP, 0);
    rng.fill(&mut script[1..]);
    script
}

fn texts() -> Vec<Vec<u8>> {
    let texts: [&[u8]; 6] = [
        b"seed 7\ndelay_us 100\ndelay_ppm 1000000\nreorder 1\n",
        b"fail_ppm 500000\nfail_errno 5\nagain_ppm 1\n",
        b"off 1\n",
        b"unplug 1",
        b"fail_errno 0\n",
        b"seed 18446744073709551616\n",
    ];
    texts.map(<[u8]>::to_vec).to_vec()
}

fn descriptors() -> Vec<Vec<u8>> {
    let key = Key::from_raw(0x0123_4567_89ab_cdef);
    let all = Access::ALL;
    let persistent = Persistence::byte_granular(Flush::Responder);
    let volatile = Descriptor::new(key, 4096, Access::READ, None);
    let lasting = Descriptor::new(key, 1 << 40, all, Some(persistent));
    let emitted = [volatile, lasting].map(|one| one.expect("sound").emit().to_vec());
    emitted.to_vec()
}

/// A script that reaches far: mostly headers that are nearly right.
fn compose(seed: u64) -> Vec<u8> {
    let mut rng = Rng::new(seed);
    let mut script = Vec::new();
    for _ in 0..24 {
        let step = rng.below(16) as u8;
        script.push(step);
        if step > 8 {
            let mut rest = [0; STEP - 1];
            rng.fill(&mut rest[..8]);
            script.extend(rest);
            continue;
        }
        let mut header = Header::new(Kind::ALL[rng.below(Kind::ALL.len() as u64) as usize]);
        let words = [0, 8, 16, 64, 512, 513, 1024, 4096, u64::MAX];
        let word = |rng: &mut Rng| words[rng.below(9) as usize];
        header.op = rng.below(18) as u32 | ((rng.below(3) as u32) << 16);
        header.flags = Flags::from_bits(rng.below(64) as u16).unwrap();
        (header.key, header.offset) = (word(&mut rng), word(&mut rng));
        header.len = word(&mut rng) as u32;
        header.total = if rng.one_in(3) {
            word(&mut rng)
        } else {
            header.len.into()
        };
        header.context = rng.below(3) as u16;
        header.code = [0, 0, 13, 0x117, 0x207, 3][rng.below(6) as usize];
        header.data = [0, 0, 0x101, 0x102, 9][rng.below(5) as usize];
        let repairs = [repair, |_: &mut Header| ()];
        repairs[usize::from(rng.one_in(6))](&mut header);
        (header.seq, header.ack) = (rng.below(6) as u32, rng.below(6) as u32);
        script.extend(header.emit(false));
        // Mostly with the right number and acknowledgement.
        script.push([0, 0, 0, 0, 0, 1, 2, 12][rng.below(8) as usize]);
        script.push(rng.next_u64() as u8);
        script.push(0);
    }
    script
}

/// Takes out what the kind does not have, as far as that is easily said.
fn repair(h: &mut Header) {
    let keep = |h: &mut Header, flags: Flags| {
        let bits = h.flags.bits() & flags.bits();
        h.flags = Flags::from_bits(bits).unwrap();
    };
    let Header {
        key,
        offset,
        total,
        data,
        code,
        context,
        len,
        op,
        flags,
        ..
    } = *h;
    *h = Header {
        flags,
        op,
        ..Header::new(h.kind)
    };
    if !h.kind.is_about_an_op() {
        h.op = 0;
    }
    let len = len.min(512);
    let both = Flags::FIRST | Flags::LAST;
    match h.kind {
        Kind::Send | Kind::Rts => {
            keep(h, Flags::ACK_NOW);
            h.context = context;
            (h.len, h.total) = match h.kind {
                Kind::Send => (len, len.into()),
                _ => (0, total.max(1)),
            };
        }
        Kind::Data | Kind::ReadData => {
            h.flags = Flags::LAST.when(offset.saturating_add(len.into()) >= total);
            (h.len, h.offset) = (len, offset & 0xffff);
            h.total = h.offset + u64::from(len) * (1 + u64::from(h.flags == Flags::NONE));
        }
        Kind::Write => {
            keep(h, Flags::TAGGED | Flags::COMMIT);
            h.flags |= both;
            (h.key, h.len, h.offset, h.total) = (key, len, offset & 0xffff, len.into());
            if total > 600 && len > 0 {
                h.flags = Flags::FIRST.when(flags.contains(Flags::FIRST));
                h.total = 4 * u64::from(len);
            }
        }
        Kind::Commit | Kind::Read => {
            h.flags = Flags::NONE;
            (h.key, h.offset, h.total) = (key, offset & 0xffff, total & 0xffff);
        }
        Kind::Atomic => {
            keep(h, Flags::COMMIT);
            (h.key, h.offset, h.total, h.len) = (key, 8, 8, 8);
            h.code = if code == 0x117 { code } else { 0x017 };
        }
        Kind::Announce => (h.flags, h.key, h.len) = (Flags::NONE, key, len.clamp(1, 256)),
        Kind::Withdraw => (h.flags, h.key) = (Flags::NONE, key),
        Kind::Done => {
            h.flags = Flags::NONE;
            (h.code, h.data) = if code == 0 { (0, 0x101) } else { (13, 0) };
            h.total = total;
        }
        Kind::AtomicData => (h.flags, h.len, h.total) = (Flags::NONE, 8, 8),
        Kind::Grant => {
            h.flags = Flags::NONE;
            (h.context, h.total, h.data) = (context, total & 0xffff, data);
        }
        Kind::Bye => (h.flags, h.code, h.data) = (Flags::NONE, 2, data & 7),
        _ => h.flags = Flags::NONE,
    }
}
