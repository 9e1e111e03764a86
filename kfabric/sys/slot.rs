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
//! No locks: the free cells are a stack that each step changes at once, in any context. Source: R. K.
//! Treiber, Systems Programming: Coping with Parallelism, 1986.

use super::once;
use crate::op::Op;
use core::any::TypeId;
use core::cell::UnsafeCell;
use core::marker::PhantomData;
use core::ops::Deref;
use core::ptr::NonNull;
use kernel::page::PAGE_SIZE;
use kernel::prelude::*;
use kernel::sync::atomic::{Atomic, Full};

mod hold;

pub use hold::Hold;

/// The part of a cell that does not depend on the context.
// Its fields are always reached one by one: `below` and `holds` are used while another owns the rest.
struct Header {
    op: Op,
    /// The next in a chain; meaningless elsewhere.
    next: Option<NonNull<Header>>,
    /// Which cell of its pool it is.
    number: u32,
    /// The number of the next in the stack of free cells; meaningless elsewhere.
    below: Atomic<u32>,
    /// How many holds there are: see `hold`.
    holds: Atomic<i32>,
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

/// The top of a stack of free cells: last in, first out, since its lines are still in the cache.
///
/// The lower bits are the number of a cell. The upper ones change whenever one is taken: a step that
/// was prepared before others took a cell and put it back must fail, although the number is the same.
/// They come round after 2^40 takes.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Top(u64);

impl Top {
    const NUMBER_BITS: u32 = 24;
    /// No cell is free.
    const NONE: u32 = (1 << Self::NUMBER_BITS) - 1;
    /// The pool's owner has gone: the last cell that comes back frees it.
    const ORPHAN: u32 = Self::NONE - 1;

    #[inline]
    fn number(self) -> u32 {
        self.0 as u32 & Self::NONE
    }

    /// The same with another cell on top.
    #[inline]
    fn with(self, number: u32) -> Top {
        Top(self.0 & !u64::from(Self::NONE) | u64::from(number))
    }

    /// The same once the first has been taken from above `below`.
    #[inline]
    fn taken(self, below: u32) -> Top {
        Top(self.0.wrapping_add(1 << Self::NUMBER_BITS)).with(below)
    }
}

/// The cells of a pool, which its owner and the taken cells keep alive.
///
/// # Invariants
///
/// - Each cell is either in the stack under `top` or taken; the taker is its only user.
/// - The chunks of `cells` are never resized: cells stay where they are for the life of the pool.
struct Shared<C: Send + 'static> {
    top: Atomic<u64>,
    /// Once the owner has gone: how many cells are taken; before, less than none.
    left: Atomic<i32>,
    /// In chunks of a page, so that the last operation may free them in atomic context: `vfree()`
    /// of one large piece might sleep.
    cells: KVec<KVec<UnsafeCell<Cell<C>>>>,
}

impl<C: Send + 'static> Shared<C> {
    /// How many cells a chunk has.
    const STEP: usize = match PAGE_SIZE / size_of::<Cell<C>>() {
        0 => 1,
        step => step,
    };

    /// How many bits of a number say which cell of a chunk it is; the others, which chunk. Not all
    /// numbers are those of cells, then, but a shift does where else it takes a division.
    const STEP_BITS: u32 = Self::STEP.next_power_of_two().ilog2();

    /// The number of the cell that was made after so many others.
    fn number(made: usize) -> usize {
        (made / Self::STEP) << Self::STEP_BITS | made % Self::STEP
    }

    /// The cell of a number; `None`: it is none of a cell.
    #[inline(always)]
    fn cell(&self, number: u32) -> Option<NonNull<Header>> {
        let number = number as usize;
        let (chunk, at) = (
            number >> Self::STEP_BITS,
            number & ((1 << Self::STEP_BITS) - 1),
        );
        let cell = self.cells.get(chunk)?.get(at)?;
        // `Cell` is `repr(C)` with the header first, and `UnsafeCell` is transparent.
        NonNull::new(cell.get().cast())
    }

    /// The number of the cell below another in the stack.
    #[inline]
    fn below(cell: NonNull<Header>) -> u32 {
        // SAFETY: The callers hold the pool, so the cell is there. Its owner, if it has one by now,
        // touches this field by atomics alone.
        once::read(unsafe { &(*cell.as_ptr()).below })
    }

    /// Takes a cell off the stack.
    #[inline]
    fn take(&self) -> Option<NonNull<Header>> {
        let mut top = Top(once::read(&self.top));
        loop {
            let cell = self.cell(top.number())?;
            let taken = top.taken(Self::below(cell));
            // Acquire: what was done to the cell before it came back is seen.
            match once::replace_acquire(&self.top, top.0, taken.0) {
                Ok(_) => return Some(cell),
                Err(now) => top = Top(now),
            }
        }
    }

    /// Puts an idle cell back.
    ///
    /// # Safety
    ///
    /// `header` is that of a taken cell of a `Pool<C>`, and the caller was its owner.
    #[inline]
    unsafe fn put(header: NonNull<Header>) {
        // SAFETY: The caller owns the cell.
        let (number, pool) = unsafe {
            (
                (*header.as_ptr()).number,
                (*header.as_ptr()).pool.cast::<Self>(),
            )
        };
        // SAFETY: A pool lives as long as a cell of it is taken.
        let shared = unsafe { pool.as_ref() };
        let mut top = Top(once::read(&shared.top));
        while top.number() != Top::ORPHAN {
            // SAFETY: As above.
            once::write(unsafe { &(*header.as_ptr()).below }, top.number());
            // Release: who takes the cell sees what was done to it. The pool may go after this.
            match once::replace_release(&shared.top, top.0, top.with(number).0) {
                Ok(_) => return,
                Err(now) => top = Top(now),
            }
        }
        Self::let_go(pool, -1);
    }

    /// Puts a cell back with what it may still hold.
    ///
    /// # Safety
    ///
    /// As of [`Shared::put`].
    unsafe fn release(header: NonNull<Header>) {
        let cell = header.cast::<Cell<C>>().as_ptr();
        // SAFETY: The caller owns the cell, and it is one of a `Pool<C>`.
        unsafe { (*cell).context = None };
        // SAFETY: As above.
        unsafe { (*cell).header.op.reset() };
        // SAFETY: By the caller's word.
        unsafe { Self::put(header) };
    }

    /// How many cells are in the stack under `top`, which nobody changes any more.
    fn count(&self, top: Top) -> i32 {
        let cells = core::iter::successors(self.cell(top.number()), |cell| {
            self.cell(Self::below(*cell))
        });
        cells.count() as i32
    }

    /// Adds to the cells that are left to an orphan; with the last, the pool goes.
    #[cold]
    fn let_go(pool: NonNull<Self>, cells: i32) {
        // SAFETY: The callers have just marked it an orphan, or had one of its cells: so it has not
        // come to 0 before.
        let left = unsafe { &pool.as_ref().left };
        if left.fetch_add(cells, Full) + cells == 0 {
            // SAFETY: `Pool::new` made it in a box. The owner has gone, and no cell is taken, nor can
            // be, so nobody uses it. It comes to 0 once: before the owner has added those that are
            // taken it is negative or untouched, and afterwards it only falls.
            drop(unsafe { KBox::from_raw(pool.as_ptr()) });
        }
    }
}

/// The operation slots of one direction of an endpoint.
///
/// Dropping it may leave cells to those who hold them: the last one frees them, in any context but
/// hardirq.
pub(crate) struct Pool<C: Send + 'static>(NonNull<Shared<C>>);

// SAFETY: A cell is used by its one owner, or is in the stack; contexts are `Send`.
unsafe impl<C: Send + 'static> Sync for Pool<C> {}
// SAFETY: As above; nothing in a pool is tied to a thread.
unsafe impl<C: Send + 'static> Send for Pool<C> {}

impl<C: Send + 'static> Pool<C> {
    /// Allocates `size` cells; `op` makes the idle operation of each. May sleep.
    ///
    /// `EINVAL`: more than there are numbers for: of 2^24, those of cells. `ENOMEM`.
    pub(crate) fn new(size: usize, mut op: impl FnMut(u32) -> Op) -> Result<Self> {
        if Shared::<C>::number(size) > Top::ORPHAN as usize {
            return Err(EINVAL);
        }
        let (step, numbered) = (Shared::<C>::STEP, Shared::<C>::number);
        let mut cells = KVec::with_capacity(size.div_ceil(step), GFP_KERNEL)?;
        for made in 0..size {
            if made % step == 0 {
                let chunk = KVec::with_capacity(step.min(size - made), GFP_KERNEL)?;
                cells.push(chunk, GFP_KERNEL)?;
            }
            let below = match made + 1 {
                next if next < size => numbered(next) as u32,
                _ => Top::NONE,
            };
            let header = Header {
                op: op(made as u32),
                next: None,
                number: numbered(made) as u32,
                below: Atomic::new(below),
                holds: Atomic::new(0),
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
        let top = Top(0).with(if size > 0 { 0 } else { Top::NONE });
        let shared = Shared {
            top: Atomic::new(top.0),
            left: Atomic::new(0),
            cells,
        };
        let shared = KBox::leak(KBox::new(shared, GFP_KERNEL)?);
        let pool = Pool(NonNull::from(&*shared));
        for cell in shared.cells.iter().flatten() {
            // SAFETY: Nobody else knows the cell yet.
            unsafe { (*cell.get()).header.pool = pool.0.cast() };
        }
        Ok(pool)
    }

    /// Takes a free cell; `None` if all are in flight.
    ///
    /// Any context but hardirq.
    #[inline]
    pub(crate) fn take(&self) -> Option<Slot<C>> {
        // SAFETY: The pool lives as long as its owner.
        let header = unsafe { self.0.as_ref() }.take()?;
        Some(Slot {
            cell: header.cast(),
            _owns: PhantomData,
        })
    }
}

impl<C: Send + 'static> Drop for Pool<C> {
    fn drop(&mut self) {
        // SAFETY: The pool lives as long as its owner.
        let shared = unsafe { self.0.as_ref() };
        let top = Top(shared.top.xchg(Top(0).with(Top::ORPHAN).0, Full));
        let all: usize = shared.cells.iter().map(|chunk| chunk.len()).sum();
        Shared::let_go(self.0, all as i32 - shared.count(top));
    }
}

/// A taken cell that knows its context's type, and holds none. Dropped, it goes back to its pool.
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
        unsafe { &mut (*self.cell.as_ptr()).header.op }
    }

    /// Hands the slot over as an operation that carries `context`.
    #[inline]
    pub(crate) fn arm(self, context: C) -> Operation {
        // SAFETY: A slot is the only owner of its cell; an idle one has no context to be dropped.
        unsafe { (&raw mut (*self.cell.as_ptr()).context).write(Some(context)) };
        let header = self.cell.cast();
        core::mem::forget(self);
        Operation { header }
    }
}

impl<C: Send + 'static> Drop for Slot<C> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: The slot owned this cell of a `Pool<C>` and is gone now.
        unsafe { Shared::<C>::put(self.cell.cast()) };
    }
}

/// Puts a value where one is that owns nothing, as that of an idle operation, and so need not be dropped: even an empty
/// vector takes the way of those that are freed.
#[inline(always)]
pub(crate) fn put_into_idle<T>(place: &mut T, value: T) {
    core::mem::forget(core::mem::replace(place, value));
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
// SAFETY: A shared operation gives `&Op` only, which is `Sync`, see below.
unsafe impl Sync for Operation {}

const _: fn() = || {
    fn is_sync<T: Sync>() {}
    is_sync::<Op>();
};

impl Deref for Operation {
    type Target = Op;

    #[inline]
    fn deref(&self) -> &Op {
        // SAFETY: An operation is the only owner of its cell.
        unsafe { &(*self.header.as_ptr()).op }
    }
}

impl Operation {
    /// The operation for a change; kept inside the core, so that two can't be swapped.
    #[inline]
    pub(crate) fn op(&mut self) -> &mut Op {
        // SAFETY: An operation is the only owner of its cell.
        unsafe { &mut (*self.header.as_ptr()).op }
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
        if unsafe { (*self.header.as_ptr()).context } != TypeId::of::<C>() {
            return Err(self);
        }
        let cell = self.header.cast::<Cell<C>>();
        // SAFETY: As above, and the type was just checked.
        let Some(context) = (unsafe { (*cell.as_ptr()).context.take() }) else {
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
        unsafe { ((*header.as_ptr()).release)(header) };
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
// SAFETY: A shared chain gives `&Op` only, and nothing of an `&Op` leads to the context, or changes a cell.
unsafe impl Sync for Chain {}

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
        let header = op.header;
        core::mem::forget(op);
        // SAFETY: The operation owned its cell, which is the chain's now.
        unsafe { (*header.as_ptr()).next = None };
        match self.tail {
            // SAFETY: Cells in the chain are owned by it.
            Some(tail) => unsafe { (*tail.as_ptr()).next = Some(header) },
            None => self.head = Some(header),
        }
        self.tail = Some(header);
        self.len = self.len.wrapping_add(1);
    }

    /// Takes the first operation out.
    #[inline]
    pub fn pop(&mut self) -> Option<Operation> {
        let header = self.head?;
        // SAFETY: Cells in the chain are owned by it.
        self.head = unsafe { (*header.as_ptr()).next };
        if self.head.is_none() {
            self.tail = None;
        }
        self.len = self.len.wrapping_sub(1);
        Some(Operation { header })
    }

    /// The operations, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Op> {
        let mut at = self.head;
        core::iter::from_fn(move || {
            // SAFETY: Cells in the chain are owned by it, which is borrowed meanwhile.
            let (op, next) = unsafe { (&(*at?.as_ptr()).op, (*at?.as_ptr()).next) };
            at = next;
            Some(op)
        })
    }

    /// Takes the first operation out that `is` accepts. Steps: those before it; only reads.
    pub fn find(&mut self, mut is: impl FnMut(&Op) -> bool) -> Option<Operation> {
        let mut before = None;
        let mut at = self.head;
        while let Some(header) = at {
            // SAFETY: Cells in the chain are owned by it.
            let (op, next) = unsafe { (&(*header.as_ptr()).op, (*header.as_ptr()).next) };
            if !is(op) {
                before = at;
                at = next;
                continue;
            }
            match before {
                // SAFETY: As above, and nothing else borrows it.
                Some(before) => unsafe { (*before.as_ptr()).next = next },
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

    /// The first operation that `is` accepts, for a change. Steps: those before it.
    #[inline]
    pub(crate) fn find_mut(&mut self, mut is: impl FnMut(&Op) -> bool) -> Option<&mut Op> {
        let mut at = self.head;
        while let Some(header) = at {
            // SAFETY: Cells in the chain are owned by it, which nobody else borrows meanwhile.
            let (op, next) = unsafe { (&mut (*header.as_ptr()).op, (*header.as_ptr()).next) };
            if is(op) {
                return Some(op);
            }
            at = next;
        }
        None
    }

    /// Takes every operation out that `is` accepts, in order. Steps: the chain's length.
    pub fn extract(&mut self, mut is: impl FnMut(&Op) -> bool) -> Chain {
        self.extract_until(|op| Some(is(op)))
    }

    /// As [`Chain::extract`], until `is` says `None`: of that operation and those behind it. Steps: those before it.
    pub(crate) fn extract_until(&mut self, mut is: impl FnMut(&Op) -> Option<bool>) -> Chain {
        let mut kept = Chain::new();
        let mut taken = Chain::new();
        loop {
            let accepts = self.iter().next().and_then(&mut is);
            let Some((accepts, op)) = accepts.and_then(|accepts| Some((accepts, self.pop()?)))
            else {
                break;
            };
            match accepts {
                true => taken.push(op),
                false => kept.push(op),
            }
        }
        kept.append(self.take());
        *self = kept;
        taken
    }

    /// Appends those of another chain.
    fn append(&mut self, mut other: Chain) {
        let Some(first) = other.head.take() else {
            return;
        };
        match self.tail {
            // SAFETY: Cells in the chain are owned by it.
            Some(tail) => unsafe { (*tail.as_ptr()).next = Some(first) },
            None => self.head = Some(first),
        }
        self.tail = other.tail.take();
        self.len = self.len.wrapping_add(core::mem::take(&mut other.len));
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
                assert!(bench.pool.take().is_none());
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
    fn last_of_several_operations_frees_the_pool() -> Result {
        for left in 0..3 {
            let contexts = Arc::new(Atomic::new(0), GFP_KERNEL)?;
            let bench = Bench::<Counted>::new(3, None)?;
            let mut ops = KVec::new();
            for _ in 0..3 {
                let context = Counted::new(&contexts);
                ops.push(
                    bench.post(Kind::Recv, Buffer::empty(), context)?.1,
                    GFP_KERNEL,
                )?;
            }
            // The others come back before the owner goes.
            while ops.len() > left {
                drop(ops.pop());
                drop(bench.read());
            }
            drop(bench);
            assert_eq!(contexts.load(Relaxed), left as i32);
            drop(ops);
            assert_eq!(contexts.load(Relaxed), 0);
        }
        Ok(())
    }

    #[test]
    fn top_is_another_once_its_cell_was_taken_and_put_back() {
        let top = Top(0).with(3);
        let again = top.taken(5).with(3);
        assert_eq!((top.number(), again.number()), (3, 3));
        assert!(again != top);
        // Those above the number come round, and leave it alone.
        assert_eq!(Top(u64::MAX).taken(5), Top(5));
        assert_eq!(Top(u64::MAX).with(Top::ORPHAN).number(), Top::ORPHAN);
    }

    #[test]
    fn pool_has_no_more_cells_than_it_has_numbers() -> Result {
        let bench = Bench::<u64>::new(1, None)?;
        let idle = |number| Op::idle(&bench.origin, number);
        let pool = Pool::<u64>::new(Top::ORPHAN as usize + 1, idle);
        assert_eq!(pool.err(), Some(EINVAL));
        assert!(Pool::<u64>::new(0, idle)?.take().is_none());
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
        while bench.read().is_some() {}
        // Until it is said that it is enough.
        for context in 0..6 {
            even.push(bench.post(Kind::Recv, Buffer::empty(), context)?.1);
        }
        let (mut seen, first) = (0, even.iter().next().map(|op| op.id()));
        let taken = even.extract_until(|op| {
            seen += 1;
            (seen < 4).then_some(Some(op.id()) != first)
        });
        assert_eq!((seen, taken.len(), even.len()), (4, 2, 4));
        assert!(even.pop().map(|op| op.id()) == first);
        assert_eq!(even.extract_until(|_| None).len(), 0);
        assert_eq!(even.extract_until(|_| Some(true)).len(), 3);
        assert!(even.is_empty() && even.extract_until(|_| Some(true)).is_empty());
        drop(taken);
        while bench.read().is_some() {}
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
