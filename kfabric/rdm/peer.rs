// SPDX-License-Identifier: GPL-2.0

//! A peer of an engine: what is posted to it, and the turns in which it is talked with.
//!
//! Everything that goes on with a peer is done in turns, by its work item or by a thread that waits for
//! completions ([`Turns`]), one step after another: so the protocol's machine needs no lock of the data path,
//! and what a frame asks for is done in one piece with the machine's knowing of it. Posts, wakers and timers
//! put what they have into the inbox, and have a turn taken.
//!
//! | file | noun |
//! |---|---|
//! | `ahead` | bytes that came with those that were asked for |
//! | `execute` | what a frame asks for |
//! | `guest` | an operation of the peer that is under way here |
//! | `landing` | where the payload of a frame lands |
//! | `post` | what is posted to the peer |
//! | `receive` | the frame that comes |
//! | `send` | the frames that go |
//! | `share` | messages that wait for a place in the machine |
//! | `talk` | the conversation: the machine and its link |
//!
//! Locks: `inbox` is taken with interrupts disabled, and under it those of the work queue and of completion queues
//! ([`Hands`](crate::cq::Hands)). `talk` is a mutex that who takes a turn holds meanwhile, also while
//! operations complete: nothing that a consumer may do in a callback takes it.

use super::engine;
use super::link::{self, Link, Wake};
use crate::av::Name;
use crate::cm::Message;
use crate::cq::{Queue, Turns};
use crate::op::{Chain, OpId, Operation};
use crate::proto::session::past::Past;
use crate::proto::wire::Hello;
use crate::provider::Match;
use crate::sys::{reclaim, work};
use kernel::impl_has_hr_timer;
use kernel::prelude::*;
use kernel::sync::atomic::{Atomic, Full, Relaxed};
use kernel::sync::{new_mutex, new_spinlock_irq, Arc, ArcBorrow, Mutex, SpinLockIrq};
use kernel::time::hrtimer::{
    HrTimer, HrTimerCallback, HrTimerCallbackContext, HrTimerRestart, RelativeSoftMode,
};
use kernel::time::{Delta, Monotonic};
use kernel::workqueue::{
    impl_has_delayed_work, impl_has_work, new_delayed_work, new_work, DelayedWork, Work, WorkItem,
};

mod ahead;
mod execute;
mod guest;
mod landing;
mod post;
mod receive;
mod send;
mod share;
mod talk;
#[cfg(CONFIG_KUNIT = "y")]
mod tests;

use talk::Talk;

pub(super) use send::part;
pub(in crate::rdm) use talk::LIMITS;

/// How many operations wait for the one that was said to follow, before the worker is woken all the same; and for
/// how long, in milliseconds.
const TOGETHER: usize = 32;
const PATIENCE_MS: u32 = 1;

/// How long the timer waits at most, in nanoseconds.
const FARTHEST: u64 = i64::MAX as u64;

/// How long it waits at least where the machine does not ask for less, in nanoseconds. While a peer is talked with,
/// the deadline is put off and brought forward with each frame: a timer that is set anew each time costs more than one
/// that fires now and then for nothing.
const STEP_NS: u64 = 10_000_000;

/// The number of the work that wakes the worker if nothing has followed.
const LATE: u64 = 1;

/// How many connection messages for a peer may wait for its worker.
const LETTERS: usize = 8;

/// A peer.
#[pin_data]
pub(super) struct Peer {
    engine: Arc<engine::Shared>,
    name: Name,
    /// Its number, by its name: that of the operations which stand for its own.
    number: u64,
    /// When the machine has something to do, for the timer; and when that fires, which may be earlier.
    deadline: Atomic<u64>,
    armed: Atomic<u64>,
    /// When the last turn was taken.
    turned: Atomic<u64>,
    /// A [`Usage`], for those who look for peers that are idle.
    usage: Atomic<u64>,
    #[pin]
    inbox: SpinLockIrq<Inbox>,
    #[pin]
    talk: Mutex<Talk>,
    #[pin]
    timer: HrTimer<Peer>,
    #[pin]
    work: Work<Peer>,
    #[pin]
    late: DelayedWork<Peer, LATE>,
}

/// What others have for the worker.
struct Inbox {
    posts: Chain,
    /// How many of them wait for one that was said to follow at once, and for which the worker was not woken.
    together: usize,
    /// Whether [`LATE`] was enqueued for them.
    late: bool,
    /// The queue at which a turn was set aside for them.
    aside: Option<Arc<Queue>>,
    /// Connection messages for the peer.
    letters: KVec<Message>,
    /// Arrivals that a receive has met; each is followed by it.
    pairs: Chain,
    /// A link that the peer has made, and what it said there.
    link: Option<(Arc<dyn Link>, Hello)>,
    /// Whether a consumer cancels something that is under way.
    cancels: bool,
    /// Whether it cancels all of it.
    quits: bool,
    /// Whether the session is to end, if nobody uses it.
    rests: bool,
    /// There is no session, and the worker knows of nothing that is under way: what is to be remembered.
    idle: Option<Past>,
    /// Why nothing is taken any more.
    closed: Option<Error>,
}

/// How much a peer's session is used.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Usage {
    /// Something is under way, or it is about to begin.
    Busy,
    /// It ends soon: the peer was asked for that, or it is over.
    Rests,
    /// Nobody has, since then.
    Idle(u64),
}

impl Usage {
    const BUSY: u64 = u64::MAX;
    const RESTS: u64 = u64::MAX - 1;

    fn as_word(self) -> u64 {
        match self {
            Usage::Busy => Self::BUSY,
            Usage::Rests => Self::RESTS,
            Usage::Idle(since) => since.min(Self::RESTS - 1),
        }
    }

    fn of_word(word: u64) -> Self {
        match word {
            Self::BUSY => Usage::Busy,
            Self::RESTS => Usage::Rests,
            since => Usage::Idle(since),
        }
    }
}

impl_has_work! {
    impl HasWork<Self> for Peer { self.work }
}

impl WorkItem for Peer {
    type Pointer = Arc<Peer>;

    fn run(this: Arc<Peer>) {
        let again = reclaim::without_io(|| this.talk.lock().turn(&this));
        if again {
            // Others wait for a worker, too.
            this.queue();
        }
    }
}

impl Turns for Peer {
    /// Where a worker is at it, which may take long, or has to be, it is left to that.
    fn take_turn(self: Arc<Self>) -> bool {
        let mut talk = self.talk.try_lock();
        let turn = |talk: &mut Talk| reclaim::without_io(|| talk.turn_by_hand(&self));
        let taken = talk.as_mut().and_then(|talk| turn(talk));
        drop(talk);
        taken.unwrap_or_else(|| {
            self.queue_work();
            false
        })
    }

    fn call(self: Arc<Self>) {
        self.queue();
    }
}

impl_has_delayed_work! {
    impl HasDelayedWork<Self, 1> for Peer { self.late }
}

impl WorkItem<LATE> for Peer {
    type Pointer = Arc<Peer>;

    /// What was said to follow has not.
    fn run(this: Arc<Peer>) {
        this.queue();
    }
}

impl_has_hr_timer! {
    impl HasHrTimer<Self> for Peer {
        mode: RelativeSoftMode<Monotonic>, field: self.timer
    }
}

impl HrTimerCallback for Peer {
    type Pointer<'a> = Arc<Self>;

    /// Fires too early where the deadline was put off, as it is by each frame that is answered in time: then it goes on
    /// until that, or, not long after a turn, in a [`STEP_NS`], since that is soon brought forward; or not quite,
    /// since the kernel counts from when it should have fired.
    fn run(
        this: ArcBorrow<'_, Self>,
        mut timer: HrTimerCallbackContext<'_, Self>,
    ) -> HrTimerRestart {
        let now = this.engine.now();
        let peer = Arc::from(this);
        loop {
            let deadline = peer.deadline.load(Relaxed);
            if deadline <= now {
                break;
            }
            let quiet = now.saturating_sub(peer.turned.load(Relaxed));
            let left = (deadline - now).min(quiet.clamp(STEP_NS, FARTHEST));
            // Who brings the deadline forward meanwhile sees this, and arms the timer anew, or is seen here.
            peer.armed.xchg(now.saturating_add(left), Full);
            if peer.deadline.load(Relaxed) == deadline {
                timer.forward_now(Delta::from_nanos(left as i64));
                // What was posted later sees when it fires next.
                let inbox = peer.inbox.lock();
                if inbox.together > 0 && inbox.closed.is_none() {
                    peer.wake();
                }
                return HrTimerRestart::Restart;
            }
        }
        // Nobody relies on it any more.
        peer.armed.xchg(0, Full);
        peer.queue();
        HrTimerRestart::NoRestart
    }
}

/// Wakes a peer's worker.
struct Waker(Arc<Peer>);

impl Wake for Waker {
    fn wake(&self) {
        self.0.queue();
    }
}

impl Peer {
    /// A peer that nothing has been said to since what is remembered. Sleeps. `ENOMEM`.
    #[inline(never)]
    pub(super) fn new(engine: &Arc<engine::Shared>, name: &Name, past: Past) -> Result<Arc<Self>> {
        link::parts(name).ok_or(EHOSTUNREACH)?;
        // Of the whole name: services of several domains have the same number there.
        let number = name.hash().max(1);
        let machine = talk::machine(engine, name, past)?;
        let talk = Talk::new(engine, name, number, machine)?;
        let inbox = Inbox {
            posts: Chain::new(),
            together: 0,
            late: false,
            aside: None,
            letters: KVec::with_capacity(LETTERS, GFP_KERNEL)?,
            pairs: Chain::new(),
            link: None,
            cancels: false,
            quits: false,
            rests: false,
            idle: None,
            closed: None,
        };
        Arc::pin_init(
            pin_init!(Peer {
                engine: engine.clone(),
                name: *name,
                number,
                deadline: Atomic::new(0),
                armed: Atomic::new(0),
                turned: Atomic::new(0),
                usage: Atomic::new(Usage::BUSY),
                inbox <- new_spinlock_irq!(inbox, "kfi_peer"),
                talk <- new_mutex!(talk, "kfi_talk"),
                timer <- HrTimer::new(),
                work <- new_work!("kfi_peer"),
                late <- new_delayed_work!("kfi_peer_late"),
            }),
            GFP_KERNEL,
        )
    }

    /// Its name.
    pub(super) fn name(&self) -> &Name {
        &self.name
    }

    /// Queues the work, unless the peer is closed. Any context but hardirq.
    pub(super) fn queue(self: &Arc<Self>) {
        let inbox = self.inbox.lock();
        if inbox.closed.is_none() {
            self.wake();
        }
    }

    /// Has the worker come, whoever waits for a completion.
    fn queue_work(self: &Arc<Self>) {
        let inbox = self.inbox.lock();
        if inbox.closed.is_none() {
            self.engine.workers().enqueue(self.clone());
        }
    }

    /// Has a turn taken: by who waits for a completion of the endpoint, or by a worker. With the inbox locked, as is
    /// the mark of a close: none is queued after it was cancelled.
    fn wake(self: &Arc<Self>) {
        if !self.engine.port().hands().lend(self) {
            self.engine.workers().enqueue(self.clone());
        }
    }

    /// Leaves operations to the worker, in their order. Any context but hardirq.
    ///
    /// Who says that more follows at once ([`Options::more`]) does not wake it: it is woken by what follows, by
    /// anything else that it is woken for, when [`TOGETHER`] of them wait, or after [`PATIENCE_MS`], or when the timer
    /// fires, if it does so within a [`STEP_NS`]; or who comes to wait for the completion takes a turn.
    ///
    /// [`Options::more`]: crate::op::Options::more
    pub(super) fn post(self: &Arc<Self>, mut ops: Chain) {
        let mut inbox = self.inbox.lock();
        if let Some(error) = inbox.closed {
            drop(inbox);
            return self.engine.end_all(&mut ops, error);
        }
        let (mut waits, mut count, mut queue) = (false, 0, None);
        while let Some(op) = ops.pop() {
            waits = op.options().more;
            count += 1;
            if waits && inbox.together == 0 {
                queue = Some(op.origin_queue().clone());
            }
            inbox.posts.push(op);
        }
        if waits {
            inbox.together += count;
        }
        if !waits || inbox.together >= TOGETHER {
            self.wake();
        } else if inbox.together == count {
            if let Some(queue) = queue {
                queue.set_aside(self);
                inbox.aside = Some(queue);
            }
            // A timer that is set fires, and looks here under the lock.
            let now = self.engine.now();
            inbox.late = !(now + 1..=now + STEP_NS).contains(&self.armed.load(Relaxed));
            if inbox.late {
                let workers = self.engine.workers();
                workers.enqueue_delayed::<_, LATE>(self.clone(), PATIENCE_MS);
            }
        }
    }

    /// Leaves a connection message for the peer to the worker. Any context but hardirq.
    ///
    /// # Errors
    /// `EAGAIN`: there is no room. `ECANCELED`: the endpoint is closed.
    pub(super) fn tell(self: &Arc<Self>, message: &Message) -> Result {
        let mut inbox = self.inbox.lock();
        if inbox.closed.is_some() {
            return Err(ECANCELED);
        }
        inbox
            .letters
            .push_within_capacity(*message)
            .map_err(|_| EAGAIN)?;
        self.wake();
        Ok(())
    }

    /// Leaves a message of the peer to the worker that has met a receive. Any context but hardirq.
    pub(super) fn met(self: &Arc<Self>, pair: Match) {
        let mut inbox = self.inbox.lock();
        if let Some(error) = inbox.closed {
            drop(inbox);
            return pair.fail(error, self.engine.port().lost());
        }
        let (arrival, receive) = pair.into_parts();
        inbox.pairs.push(arrival);
        inbox.pairs.push(receive);
        self.wake();
    }

    /// Takes a link that the peer has made; gives it back if this is closed. Sleeps.
    pub(super) fn greet(
        self: &Arc<Self>,
        link: Arc<dyn Link>,
        hello: Hello,
    ) -> Result<(), Arc<dyn Link>> {
        let mut inbox = self.inbox.lock();
        if inbox.closed.is_some() {
            return Err(link);
        }
        let before = inbox.link.replace((link, hello));
        self.wake();
        drop(inbox);
        if let Some((link, _)) = before {
            link.close(false);
        }
        Ok(())
    }

    /// Takes an operation out again that the worker has not seen. Any context but hardirq.
    pub(super) fn recall(&self, id: OpId) -> Option<Operation> {
        self.inbox.lock().posts.find(|op| op.id() == id)
    }

    /// Has the worker look for what is to be cancelled. Any context but hardirq.
    pub(super) fn cancel(self: &Arc<Self>) {
        let mut inbox = self.inbox.lock();
        if inbox.closed.is_none() {
            inbox.cancels = true;
            self.wake();
        }
    }

    /// Ends what was posted and has not met the peer, by the worker as far as that has seen it. Any context but
    /// hardirq.
    pub(super) fn quit(self: &Arc<Self>) {
        let mut inbox = self.inbox.lock();
        let mut posts = inbox.posts.take();
        if inbox.closed.is_none() {
            inbox.quits = true;
            self.wake();
        }
        drop(inbox);
        self.engine.end_all(&mut posts, ECANCELED);
    }

    /// How much its session is used.
    pub(super) fn usage(&self) -> Usage {
        Usage::of_word(self.usage.load(Relaxed))
    }

    /// Has the worker end the session, if nobody uses it. Any context but hardirq.
    pub(super) fn rest(self: &Arc<Self>) {
        let mut inbox = self.inbox.lock();
        if inbox.closed.is_none() {
            inbox.rests = true;
            self.wake();
        }
    }

    /// Whether there is no session, and the worker knows of nothing that is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.inbox.lock().idle.is_some()
    }

    /// Marks it as closed, if there is no session and nothing is under way: then whoever wants the peer
    /// again makes another one, of what is to be remembered. Any context but hardirq.
    ///
    /// What follows is [`Peer::forget`].
    pub(super) fn let_go(&self) -> Option<Past> {
        let mut inbox = self.inbox.lock();
        let is_unused = inbox.closed.is_none()
            && inbox.posts.is_empty()
            && inbox.pairs.is_empty()
            && inbox.letters.is_empty()
            && inbox.link.is_none();
        let past = inbox.idle.filter(|_| is_unused)?;
        inbox.closed = Some(ECANCELED);
        Some(past)
    }

    /// Ends what is left of a peer that was let go: its worker and its timer. Sleeps.
    pub(super) fn forget(self: &Arc<Self>) {
        self.begin_close(ECANCELED);
        self.close(ECANCELED);
    }

    /// Begins the end: what has not begun ends with `error`, and nothing comes in any more. Then
    /// [`Peer::settle`], and [`Peer::close`]. Sleeps.
    pub(super) fn begin_close(self: &Arc<Self>, error: Error) {
        let mut inbox = self.inbox.lock();
        inbox.closed = Some(error);
        let (mut posts, mut pairs) = (inbox.posts.take(), inbox.pairs.take());
        let (link, letters) = (inbox.link.take(), core::mem::take(&mut inbox.letters));
        let aside = inbox.aside.take();
        drop(inbox);
        if let Some(queue) = aside {
            queue.call_off(self);
        }
        work::cancel_delayed::<_, LATE>(self);
        work::cancel(self);
        self.engine.end_all(&mut posts, error);
        while let Some((arrival, receive)) = pairs.pop().zip(pairs.pop()) {
            Match::from_parts(arrival, receive).fail(error, self.engine.port().lost());
        }
        if let Some((link, _)) = link {
            link.close(false);
        }
        self.talk.lock().begin_close(self, letters, error);
    }

    /// Goes on with what is under way; whether nothing is any more. Sleeps, but not for the peer.
    pub(super) fn settle(self: &Arc<Self>) -> bool {
        self.talk.lock().settle(self)
    }

    /// Ends everything. Sleeps.
    pub(super) fn close(self: &Arc<Self>, error: Error) {
        let timer = self.talk.lock().close(self, error);
        // Waits for the timer's callback, which takes the inbox's lock, and those under it.
        drop(timer);
    }
}
