// SPDX-License-Identifier: GPL-2.0

//! The number of an operation.

use super::origin::Poster;
use kernel::prelude::*;

/// Names an operation in flight, for [`Endpoint::cancel`](crate::endpoint::Endpoint::cancel).
///
/// A number of an operation that has ended names nothing, also after its slot has been used again,
/// and at another endpoint, or another context of its own, it names nothing either.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpId {
    pub(crate) poster: Poster,
    pub(crate) receive: bool,
    pub(crate) index: u32,
    pub(crate) use_count: u64,
}

impl OpId {
    /// Which of its endpoint's contexts has posted it: see [`Op::own_context`](super::Op::own_context).
    pub fn context(&self) -> usize {
        self.poster.context.into()
    }
}

#[kunit_tests(kfabric_op_id)]
mod tests {
    use crate::op::testing::{done, Bench};
    use crate::op::{Buffer, Kind};
    use kernel::prelude::*;

    #[test]
    fn number_names_one_use_of_one_slot() -> Result {
        let (bench, other) = (Bench::<u64>::new(2, None)?, Bench::<u64>::new(1, None)?);
        let (first, op) = bench.post(Kind::Recv, Buffer::empty(), 1)?;
        let (second, _waits) = bench.post(Kind::Recv, Buffer::empty(), 2)?;
        assert!(first != second);
        op.complete(done(0));
        drop(bench.read());
        let (again, op) = bench.post(Kind::Recv, Buffer::empty(), 3)?;
        assert!(again != first && again.index == first.index);
        op.complete(done(0));
        drop(bench.read());
        let (send, _op) = bench.post(Kind::Send, Buffer::empty(), 4)?;
        assert!(!send.receive && again.receive);
        // All alike but the endpoint.
        let (mut anothers, _op) = other.post(Kind::Recv, Buffer::empty(), 1)?;
        anothers.poster.endpoint = 8;
        assert!(anothers != first);
        // All alike but the context.
        let mut siblings = first;
        siblings.poster.context = 1;
        assert!(siblings != first && siblings.context() == 1);
        // Of the same slot of the same context, opened again.
        let again = Bench::<u64>::new(2, None)?;
        let (later, _op) = again.post(Kind::Recv, Buffer::empty(), 1)?;
        assert!(later != first && later.index == first.index);
        Ok(())
    }
}
