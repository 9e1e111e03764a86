// SPDX-License-Identifier: GPL-2.0

//! Operation slots: preallocated, pinned cells that travel instead of being copied.
//!
//! A `Pool` owns the cells of one direction of one endpoint. A free cell is taken as a
//! `Slot`, filled and armed with the consumer's context, and travels from then on as an
//! [`Operation`], which no longer knows the context's type: through the provider, in
//! [`Chain`]s, and at last in a completion queue, where `Operation::claim` gives the typed
//! slot and the context back. Neither step allocates, and a cell has one owner at all times:
//! that is how an operation ends in exactly one completion.
//!
//! Locks: the free list of a pool is a leaf lock; nothing is called with it held.

use crate::op::Op;
use core::any::TypeId;
use core::cell::UnsafeCell;
use core::marker::PhantomData;
use core::ops::Deref;
use core::ptr::NonNull;
use kernel::page::PAGE_SIZE;
use kernel::prelude::*;
use kernel::static_lock_class;
use kernel::sync::SpinLockIrq;

/// The part of a cell that does not depend on the context.
struct Header {
    op: Op,
    /// The next in a chain or in the free list; meaningless elsewhere.
    next: Option<NonNull<Header>>,
    /// What the context is.
    context: TypeId,
    /// Puts a taken cell back whose context's type is not known.
    release: unsafe fn(NonNull<Header>),
    /// The `Shared<C>` that the cell is in.
    pool: NonNull<()>,
}

#[repr(C)]
struct Cell<C> {
    header: Header,
    context: Option<C>,
}

/// The free cells of a pool, last in, first out: the one whose lines are still in the cache.
struct Free {
    head: Option<NonNull<Header>>,
    /// How many cells are taken.
    taken: usize,
    /// Whether the pool's owner has gone: the last cell that comes back frees it.
    orphan: bool,
}

// SAFETY: The list owns the free cells that it points at, and `Header` and the context (`C: Send`
// wherever a pool is made) may be used from any thread.
unsafe impl Send for Free {}

/// The name of the lock of every pool.
///
/// A static, not a literal: `Pool::new` is compiled into each consumer, and lockdep wants one
/// address of the name for one class.
static LOCK_NAME: &CStr = c"kfi_slots";

/// The cells of a pool, which its owner and the taken cells keep alive.
///
/// # Invariants
///
/// - Each cell is either in `free` or taken; the taker is its only user.
/// - `free.taken` is how many are taken.
/// - The chunks of `cells` are never resized: cells stay where they are for the life of the pool.
#[pin_data]
struct Shared<C: Send + 'static> {
    #[pin]
    free: SpinLockIrq<Free>,
    /// In chunks of a page, so that the last operation may free them in atomic context: `vfree()`
    /// of one large piece might sleep.
    cells: KVec<KVec<UnsafeCell<Cell<C>>>>,
}

impl<C: Send + 'static> Shared<C> {
    /// Frees the cells.
    ///
    /// # Safety
    ///
    /// The owner has gone, no cell is taken, and this is called once.
    unsafe fn free(this: NonNull<Self>) {
        // SAFETY: `Pool::new` made it in a box and pinned it; by the caller's word nobody uses it.
        // Whoever let go last before has released the lock, and touches nothing after that.
        drop(unsafe { Pin::new_unchecked(KBox::from_raw(this.as_ptr())) });
    }

    /// Puts a cell back.
    ///
    /// # Safety
    ///
    /// `header` is that of a taken cell of a `Pool<C>`, and the caller was its owner.
    unsafe fn release(header: NonNull<Header>) {
        // SAFETY: The caller owns the cell, and it is one of a `Pool<C>`.
        let cell = unsafe { header.cast::<Cell<C>>().as_mut() };
        cell.context = None;
        cell.header.op.reset();
        let pool = cell.header.pool.cast::<Self>();
        // SAFETY: A pool lives as long as a cell of it is taken.
        let mut free = unsafe { pool.as_ref() }.free.lock();
        cell.header.next = free.head;
        free.head = Some(header);
        free.taken -= 1;
        let last = free.orphan && free.taken == 0;
        drop(free);
        if last {
            // SAFETY: As just seen; nobody takes a cell of an orphan, so it is seen once.
            unsafe { Self::free(pool) };
        }
    }
}

/// The operation slots of one direction of an endpoint.
///
/// Dropping it may leave cells to those who hold them: the last one frees them, in any context but
/// hardirq.
pub(crate) struct Pool<C: Send + 'static>(NonNull<Shared<C>>);

// SAFETY: A cell is used by its one owner, or by the free list under its lock; contexts are `Send`.
unsafe impl<C: Send + 'static> Sync for Pool<C> {}
// SAFETY: As above; nothing in a pool is tied to a thread.
unsafe impl<C: Send + 'static> Send for Pool<C> {}

impl<C: Send + 'static> Pool<C> {
    /// Allocates `size` cells; `op` makes the idle operation of each. May sleep.
    pub(crate) fn new(size: usize, mut op: impl FnMut(u32) -> Op) -> Result<Self> {
        let step = (PAGE_SIZE / size_of::<Cell<C>>()).max(1);
        let mut cells = KVec::with_capacity(size.div_ceil(step), GFP_KERNEL)?;
        for index in 0..size {
            if index % step == 0 {
                let chunk = KVec::with_capacity(step.min(size - index), GFP_KERNEL)?;
                cells.push(chunk, GFP_KERNEL)?;
            }
            let header = Header {
                op: op(index as u32),
                next: None,
                context: TypeId::of::<C>(),
                release: Shared::<C>::release,
                pool: NonNull::dangling(),
            };
            let cell = Cell {
                header,
                context: None,
            };
            let chunk = cells.last_mut().ok_or(EINVAL)?;
            chunk.push(UnsafeCell::new(cell), GFP_KERNEL)?;
        }
        let none = Free {
            head: None,
            taken: 0,
            orphan: false,
        };
        let shared = KBox::pin_init(
            pin_init!(Shared {
                free <- SpinLockIrq::new(none, LOCK_NAME, static_lock_class!()),
                cells,
            }),
            GFP_KERNEL,
        )?;
        // SAFETY: It stays where it is until `Shared::free`, which pins it again.
        let shared = KBox::leak(unsafe { Pin::into_inner_unchecked(shared) });
        let pool = Pool(NonNull::from(&*shared));
        let mut free = shared.free.lock();
        for cell in shared
            .cells
            .iter()
            .rev()
            .flat_map(|chunk| chunk.iter().rev())
        {
            let mut header = NonNull::from(cell).cast::<Header>();
            // SAFETY: `Cell` is `repr(C)` with the header first, `UnsafeCell` is transparent, and
            // nobody else knows the cell yet.
            let header_mut = unsafe { header.as_mut() };
            header_mut.next = free.head;
            header_mut.pool = pool.0.cast();
            free.head = Some(header);
        }
        drop(free);
        Ok(pool)
    }

    /// Takes a free cell, for an operation of `len` bytes; `None` if all are in flight.
    ///
    /// Any context but hardirq.
    #[inline]
    pub(crate) fn take(&self, len: usize) -> Option<Slot<C>> {
        // SAFETY: The pool lives as long as its owner.
        let mut free = unsafe { self.0.as_ref() }.free.lock();
        let header = free.head?;
        // SAFETY: The cell is in the free list, whose lock is held: nobody else uses it.
        let cell = unsafe { header.as_ref() };
        free.head = cell.next;
        free.taken += 1;
        cell.op.count_post(len);
        drop(free);
        Some(Slot {
            cell: header.cast(),
            _owns: PhantomData,
        })
    }
}

impl<C: Send + 'static> Drop for Pool<C> {
    fn drop(&mut self) {
        // SAFETY: The pool lives as long as its owner.
        let mut free = unsafe { self.0.as_ref() }.free.lock();
        free.orphan = true;
        let last = free.taken == 0;
        drop(free);
        if last {
            // SAFETY: The owner goes, no cell is taken, and none can be any more.
            unsafe { Shared::free(self.0) };
        }
    }
}

/// A taken cell that knows its context's type. Dropped, it goes back to its pool.
pub(crate) struct Slot<C: Send + 'static> {
    cell: NonNull<Cell<C>>,
    _owns: PhantomData<Cell<C>>,
}

// SAFETY: A slot owns its cell; `Op` and `C` may move between threads.
unsafe impl<C: Send + 'static> Send for Slot<C> {}

impl<C: Send + 'static> Slot<C> {
    /// The operation, to fill it or to take out what it held.
    #[inline]
    pub(crate) fn op(&mut self) -> &mut Op {
        // SAFETY: A slot is the only owner of its cell.
        unsafe { &mut self.cell.as_mut().header.op }
    }

    /// Hands the slot over as an operation that carries `context`.
    #[inline]
    pub(crate) fn arm(mut self, context: C) -> Operation {
        // SAFETY: A slot is the only owner of its cell.
        unsafe { self.cell.as_mut().context = Some(context) };
        let header = self.cell.cast();
        core::mem::forget(self);
        Operation { header }
    }
}

impl<C: Send + 'static> Drop for Slot<C> {
    fn drop(&mut self) {
        // SAFETY: The slot owned this cell of a `Pool<C>` and is gone now.
        unsafe { Shared::<C>::release(self.cell.cast()) };
    }
}

/// An operation in flight, owned by whoever holds it: a provider, a queue, the core.
///
/// It ends in exactly one completion: by [`Operation::complete`], or, if it is dropped before
/// that, by one with `ECANCELED`.
#[must_use = "a dropped operation completes with ECANCELED"]
pub struct Operation {
    header: NonNull<Header>,
}

// SAFETY: An operation owns its cell; `Op` and the context are `Send`.
unsafe impl Send for Operation {}
// SAFETY: A shared operation gives `&Op` only, which is `Sync`.
unsafe impl Sync for Operation {}

impl Deref for Operation {
    type Target = Op;

    #[inline]
    fn deref(&self) -> &Op {
        // SAFETY: An operation is the only owner of its cell.
        unsafe { &self.header.as_ref().op }
    }
}

impl Operation {
    /// The operation for a change; kept inside the core, so that two can't be swapped.
    #[inline]
    pub(crate) fn op(&mut self) -> &mut Op {
        // SAFETY: An operation is the only owner of its cell.
        unsafe { &mut self.header.as_mut().op }
    }

    /// Puts a completed operation into its queue.
    #[inline]
    pub(crate) fn deliver(self) {
        // SAFETY: An operation is the only owner of its cell. The queue is there until the
        // operation has let go of it; that is after it was taken out of the queue, under the lock
        // that `push` holds until it has done everything.
        let queue = unsafe { &*core::ptr::from_ref(self.origin_queue()) };
        queue.push(self);
    }

    /// Gives the typed slot and its context back, if the context is a `C`.
    #[inline]
    pub(crate) fn claim<C: Send + 'static>(self) -> Result<(Slot<C>, C), Operation> {
        // SAFETY: An operation is the only owner of its cell.
        if unsafe { self.header.as_ref() }.context != TypeId::of::<C>() {
            return Err(self);
        }
        let mut cell = self.header.cast::<Cell<C>>();
        // SAFETY: As above, and the type was just checked.
        let Some(context) = (unsafe { cell.as_mut().context.take() }) else {
            return Err(self);
        };
        core::mem::forget(self);
        let slot = Slot {
            cell,
            _owns: PhantomData,
        };
        Ok((slot, context))
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        let header = self.header;
        if !self.is_complete() {
            Operation { header }.abandon();
            return;
        }
        // SAFETY: The operation owned the cell and is gone now; the function is that of its pool.
        unsafe { (header.as_ref().release)(header) };
    }
}

/// A first-in, first-out chain of operations, through the operations themselves.
///
/// Never allocates. A chain must not be dropped with a data-path lock held: what is in it
/// completes then.
pub struct Chain {
    head: Option<NonNull<Header>>,
    tail: Option<NonNull<Header>>,
    len: usize,
}

// SAFETY: A chain owns the operations in it, which are `Send`.
unsafe impl Send for Chain {}

impl Chain {
    /// An empty chain.
    pub const fn new() -> Self {
        Chain {
            head: None,
            tail: None,
            len: 0,
        }
    }

    /// How many operations are in the chain.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.head.is_none()
    }

    /// Appends an operation.
    #[inline]
    pub fn push(&mut self, op: Operation) {
        let mut header = op.header;
        core::mem::forget(op);
        // SAFETY: The operation owned its cell, which is the chain's now.
        unsafe { header.as_mut().next = None };
        match self.tail {
            // SAFETY: Cells in the chain are owned by it.
            Some(mut tail) => unsafe { tail.as_mut().next = Some(header) },
            None => self.head = Some(header),
        }
        self.tail = Some(header);
        self.len += 1;
    }

    /// Takes the first operation out.
    #[inline]
    pub fn pop(&mut self) -> Option<Operation> {
        let header = self.head?;
        // SAFETY: Cells in the chain are owned by it.
        self.head = unsafe { header.as_ref().next };
        if self.head.is_none() {
            self.tail = None;
        }
        self.len -= 1;
        Some(Operation { header })
    }

    /// The operations, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Op> {
        let mut at = self.head;
        core::iter::from_fn(move || {
            // SAFETY: Cells in the chain are owned by it, which is borrowed meanwhile.
            let cell = unsafe { at?.as_ref() };
            at = cell.next;
            Some(&cell.op)
        })
    }

    /// Takes the first operation out that `is` accepts. Steps: those before it; only reads.
    pub fn find(&mut self, mut is: impl FnMut(&Op) -> bool) -> Option<Operation> {
        let mut before = None;
        let mut at = self.head;
        while let Some(header) = at {
            // SAFETY: Cells in the chain are owned by it.
            let cell = unsafe { header.as_ref() };
            if !is(&cell.op) {
                before = at;
                at = cell.next;
                continue;
            }
            let next = cell.next;
            match before {
                // SAFETY: As above, and nothing else borrows it.
                Some(mut before) => unsafe { before.as_mut().next = next },
                None => self.head = next,
            }
            if next.is_none() {
                self.tail = before;
            }
            self.len -= 1;
            return Some(Operation { header });
        }
        None
    }

    /// Takes every operation out that `is` accepts, in order. Steps: the chain's length.
    pub fn extract(&mut self, mut is: impl FnMut(&Op) -> bool) -> Chain {
        let mut kept = Chain::new();
        let mut taken = Chain::new();
        while let Some(op) = self.pop() {
            if is(&op) {
                taken.push(op);
            } else {
                kept.push(op);
            }
        }
        *self = kept;
        taken
    }

    /// Takes all out.
    pub fn take(&mut self) -> Chain {
        core::mem::take(self)
    }
}

impl Default for Chain {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Chain {
    fn drop(&mut self) {
        while let Some(op) = self.pop() {
            drop(op);
        }
    }
}

#[kunit_tests(kfabric_slot)]
mod tests {
    use super::*;
    use crate::op::testing::{Bench, Counted};
    use crate::op::{Buffer, Kind};
    use kernel::sync::atomic::{Atomic, Relaxed};
    use kernel::sync::Arc;

    /// More than fit in a page.
    const MANY: usize = 3 * PAGE_SIZE / size_of::<Cell<u64>>() + 1;

    #[test]
    fn each_slot_is_taken_once() -> Result {
        for size in [1, 2, MANY] {
            let bench = Bench::<u64>::new(size, None)?;
            for _ in 0..2 {
                let mut ops = KVec::new();
                for context in 0..size as u64 {
                    let (id, op) = bench.post(Kind::Recv, Buffer::empty(), context)?;
                    // Nobody has used them, or they come back last in, first out.
                    assert!((id.index as usize) < size);
                    ops.push(op, GFP_KERNEL)?;
                }
                assert!(bench.pool.take(0).is_none());
                let mut seen = KVec::from_elem(false, size, GFP_KERNEL)?;
                for op in &ops {
                    let seen = &mut seen[op.id().index as usize];
                    assert!(!*seen);
                    *seen = true;
                }
                drop(ops);
                while bench.read().is_some() {}
            }
        }
        Ok(())
    }

    #[test]
    fn context_goes_with_its_slot() -> Result {
        let contexts = Arc::new(Atomic::new(0), GFP_KERNEL)?;
        let bench = Bench::<Counted>::new(2, None)?;
        let (_, op) = bench.post(Kind::Recv, Buffer::empty(), Counted::new(&contexts))?;
        assert_eq!(contexts.load(Relaxed), 1);
        let Err(op) = op.claim::<u64>() else {
            return Err(EINVAL);
        };
        assert_eq!(contexts.load(Relaxed), 1);
        let Ok((slot, context)) = op.claim::<Counted>() else {
            return Err(EINVAL);
        };
        drop(slot);
        assert_eq!(contexts.load(Relaxed), 1);
        drop(context);
        assert_eq!(contexts.load(Relaxed), 0);
        // A context that nobody claims goes when its completion does.
        drop(bench.post(Kind::Recv, Buffer::empty(), Counted::new(&contexts))?);
        assert_eq!(contexts.load(Relaxed), 1);
        drop(bench.read());
        assert_eq!(contexts.load(Relaxed), 0);
        Ok(())
    }

    #[test]
    fn operation_outlives_its_pool() -> Result {
        let contexts = Arc::new(Atomic::new(0), GFP_KERNEL)?;
        let bench = Bench::<Counted>::new(MANY, None)?;
        let (_, op) = bench.post(Kind::Recv, Buffer::empty(), Counted::new(&contexts))?;
        drop(bench);
        assert_eq!(contexts.load(Relaxed), 1);
        // Nobody reads its completion, so it goes at once, and the cells with it.
        drop(op);
        assert_eq!(contexts.load(Relaxed), 0);
        Ok(())
    }

    #[test]
    fn chain_keeps_its_order() -> Result {
        let bench = Bench::<u64>::new(8, None)?;
        let mut chain = Chain::new();
        assert!(chain.is_empty() && chain.pop().is_none());
        for context in 0..6 {
            chain.push(bench.post(Kind::Recv, Buffer::empty(), context)?.1);
        }
        assert_eq!(chain.len(), 6);
        assert!(chain.iter().map(|op| op.id().index).eq(0..6));
        let mut even = chain.extract(|op| op.id().index % 2 == 0);
        assert_eq!((chain.len(), even.len()), (3, 3));
        let mut odd = chain.take();
        assert!(chain.is_empty() && chain.take().is_empty());
        while let Some(op) = odd.pop() {
            even.push(op);
        }
        for expected in [0, 2, 4, 1, 3, 5] {
            let op = even.pop().ok_or(EINVAL)?;
            assert_eq!(op.id().index, expected);
        }
        assert!(even.pop().is_none() && even.len() == 0);
        // It can be used again when it was empty.
        even.push(bench.post(Kind::Recv, Buffer::empty(), 6)?.1);
        assert_eq!(even.len(), 1);
        Ok(())
    }

    #[test]
    fn dropped_chain_completes_what_is_in_it() -> Result {
        let bench = Bench::<u64>::new(3, None)?;
        let mut chain = Chain::new();
        for context in 0..3 {
            chain.push(bench.post(Kind::Recv, Buffer::empty(), context)?.1);
        }
        drop(chain);
        for context in 0..3 {
            assert_eq!(bench.read().map(|done| done.context), Some(context));
        }
        assert!(bench.read().is_none());
        Ok(())
    }
}
