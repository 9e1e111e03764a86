// SPDX-License-Identifier: GPL-2.0

//! Bytes that are read: what is accepted is what it says, and nothing panics.

use super::super::descriptor::Descriptor;
use super::super::faults::{Plan, Settings};
use super::super::wire::{crc, Header, Hello, Kind, SIZE};

/// Longest payload that is taken.
const FRAME: u32 = 4096;

/// A frame: how it is read, its header, and the payload of a hello.
///
/// With checksums nothing gets further that was not made for it; so they may be set right first.
pub(super) fn frame(bytes: &[u8]) {
    let Some((how, bytes)) = bytes.split_first() else {
        return;
    };
    let (summed, right) = (how & 1 != 0, how & 2 != 0);
    let mut header = [0; SIZE];
    let len = bytes.len().min(SIZE);
    header[..len].copy_from_slice(&bytes[..len]);
    let payload = &bytes[len..];
    if right && (summed || header[1] == Kind::Hello as u8) {
        let sum = crc::of(&[&header[..SIZE - 4], &[0; 4]]);
        header[SIZE - 4..].copy_from_slice(&sum.to_le_bytes());
    }
    if let Ok(read) = Header::parse(&header, FRAME, summed) {
        assert!(read.len <= FRAME);
        assert_eq!(read.emit(summed), header, "{read:?}");
    }
    assert!(Header::parse(bytes, FRAME, summed).is_err() || bytes.len() == SIZE);
    if let Ok(hello) = Hello::parse(payload) {
        let mut out = [0; super::super::wire::hello::MAX];
        let len = hello.emit(&mut out);
        assert_eq!(&out[..len], payload, "{hello:?}");
        assert!(hello.limits.are_sound() && hello.incarnation != 0);
    }
}

/// What a region tells.
pub(super) fn descriptor(bytes: &[u8]) {
    if let Ok(descriptor) = Descriptor::parse(bytes) {
        assert_eq!(&descriptor.emit()[..], bytes, "{descriptor:?}");
    }
}

/// What an administrator writes to inject faults.
pub(super) fn faults(text: &[u8]) {
    let Ok(request) = Settings::OFF.parse(text) else {
        return;
    };
    let rows = request.settings.rows();
    let shown: String = rows
        .iter()
        .map(|(name, value)| format!("{name} {value}\n"))
        .collect();
    let again = Settings::OFF.parse(shown.as_bytes());
    assert_eq!(
        again.map(|again| again.settings),
        Ok(request.settings),
        "{shown}"
    );
    let mut plan = Plan::new(request.settings);
    for _ in 0..4 {
        let turn = plan.turn();
        assert!(turn.delay_us <= request.settings.delay_us);
        assert!(turn
            .fail
            .is_none_or(|errno| errno == request.settings.fail_errno));
        plan.refuses();
    }
}
