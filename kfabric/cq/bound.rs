// SPDX-License-Identifier: GPL-2.0

//! The room that an endpoint has in a queue.

use super::hand::{Hands, Joined};
use super::Queue;
use kernel::prelude::*;
use kernel::sync::Arc;

/// An endpoint's hold on a queue's room. In a box, since an endpoint has some, and is moved.
pub(crate) struct Bound(KBox<Room>);

struct Room {
    queue: Arc<Queue>,
    slots: usize,
    /// Whoever waits there may take turns for the endpoint.
    _joined: Option<Joined>,
}

impl Bound {
    pub(crate) fn new(
        queue: &Arc<Queue>,
        slots: usize,
        hands: Option<&Arc<Hands>>,
    ) -> Result<Self> {
        let room = KBox::new_uninit(GFP_KERNEL)?;
        queue.bind(slots)?;
        Ok(Bound(room.write(Room {
            queue: queue.clone(),
            slots,
            _joined: hands.map(|hands| Joined::new(hands, queue)),
        })))
    }

    pub(crate) fn queue(&self) -> &Queue {
        &self.0.queue
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        self.0.queue.unbind(self.0.slots);
    }
}
