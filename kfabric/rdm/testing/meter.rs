// SPDX-License-Identifier: GPL-2.0

//! How far the frames have come that one side sends over a link.

use super::Place;
use crate::proto::wire;

/// Where in a header the length of its payload is.
const LEN: usize = 4;

/// Which byte of which frame comes next.
#[derive(Default)]
pub(super) struct Meter {
    frame: usize,
    have: usize,
    len: [u8; 4],
}

impl Meter {
    /// Bytes of the frame's payload, once that is known.
    fn len(&self) -> usize {
        u32::from_le_bytes(self.len) as usize
    }

    /// Whether all of the frame has passed.
    fn is_complete(&self) -> bool {
        self.have >= wire::SIZE && self.have == wire::SIZE + self.len()
    }

    /// Whether it is there.
    pub(super) fn is_at(&self, frame: usize, place: Place) -> bool {
        let at = match place {
            // Or behind the frame before.
            Place::Start if self.is_complete() => return self.frame + 1 == frame,
            Place::Start => 0,
            Place::Header => wire::SIZE / 2,
            Place::Payload => wire::SIZE + self.len() / 2,
        };
        self.frame == frame && self.have == at
    }

    /// The first frame of which nothing has passed.
    pub(super) fn next_frame(&self) -> usize {
        self.frame + usize::from(self.have > 0)
    }

    /// Counts the next bytes: as many as [`Meter::stride`] says.
    pub(super) fn pass(&mut self, bytes: &[u8]) {
        let place = self.have.checked_sub(LEN);
        let place = place.and_then(|at| self.len.get_mut(at));
        if let (Some(place), Some(byte)) = (place, bytes.first()) {
            *place = *byte;
        }
        self.have += bytes.len();
    }

    /// Goes on to the next frame, if this one is complete.
    pub(super) fn settle(&mut self) {
        if self.is_complete() {
            *self = Meter {
                frame: self.frame + 1,
                ..Meter::default()
            };
        }
    }

    /// How many of `left` bytes pass before anything can happen: within a payload, many at once.
    pub(super) fn stride(&self, left: usize) -> usize {
        let (half, end) = (wire::SIZE + self.len() / 2, wire::SIZE + self.len());
        let next = match self.have {
            0..wire::SIZE => return 1,
            have if have < half => half,
            _ => end,
        };
        (next - self.have).min(left)
    }
}
