// SPDX-License-Identifier: GPL-2.0

//! The room that an endpoint has in a queue.

use super::Queue;
use kernel::prelude::*;
use kernel::sync::Arc;

/// An endpoint's hold on a queue's room.
pub(crate) struct Bound {
    queue: Arc<Queue>,
    slots: usize,
}

impl Bound {
    pub(crate) fn new(queue: &Arc<Queue>, slots: usize) -> Result<Self> {
        queue.bind(slots)?;
        Ok(Bound {
            queue: queue.clone(),
            slots,
        })
    }

    pub(crate) fn queue(&self) -> &Queue {
        &self.queue
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        self.queue.unbind(self.slots);
    }
}
