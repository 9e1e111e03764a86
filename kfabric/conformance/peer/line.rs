// SPDX-License-Identifier: GPL-2.0

//! A line to the suite of the other host, which does what it is asked for.
//!
//! It is of messages between two endpoints of its own: a question, and its answer.

use super::words::{Heard, Saying, Word, MOST};
use crate::rig::{timeout, End};
use core::pin::Pin;
use kernel::prelude::*;
use kernel::sync::{new_mutex, Arc, Mutex};
use kfabric::prelude::*;

/// Makes verbs, and the list of them in which each has its number.
macro_rules! verbs {
    ($($(#[$doc:meta])* $verb:ident,)*) => {
        /// What can be asked for. What each takes and gives is seen in `servant.rs`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u64)]
        pub(super) enum Verb {
            $($(#[$doc])* $verb,)*
        }

        impl Verb {
            const ALL: &[Verb] = &[$(Verb::$verb),*];
        }
    };
}

verbs! {
    /// Has a session; the name of whoever asks follows. All others are of one.
    Call,
    /// Has no session any more: all of it is closed.
    Leave,
    /// Serves nobody any more.
    Finish,
    Open,
    Accept,
    Insert,
    Remove,
    Receive,
    Send,
    Cancel,
    Poll,
    Next,
    Wait,
    Register,
    RegisterPersistent,
    Descriptor,
    ReadAt,
    WriteAt,
    Load,
    Store,
    Atomic,
    Commit,
    CloseRegion,
    DropRegion,
    ReadMemory,
    DropMemory,
    CloseEndpoint,
    Close,
}

impl Word for Verb {
    fn say(&self, to: &mut Saying) -> Result {
        (*self as u64).say(to)
    }

    fn hear(from: &mut Heard<'_>) -> Result<Self> {
        let number = usize::hear(from)?;
        Verb::ALL.get(number).copied().ok_or(EBADMSG)
    }
}

/// The context of what is received.
const ANSWER: u64 = 1;
/// And of what is sent.
const QUESTION: u64 = 2;

/// A line, and its session.
pub(super) struct Line {
    end: KBox<End>,
    to: Address,
    session: u64,
    /// Where the next answer goes; none, once one has not come.
    room: Pin<KBox<Mutex<Option<Memory>>>>,
}

impl Line {
    /// A line to whoever serves under that name. Sleeps.
    pub(super) fn new(info: &Info, name: &Name) -> Result<Arc<Self>> {
        let end = End::open(info, 2, None)?;
        let to = end.av.insert(name)?;
        let mut room = Some(Memory::zeroed(MOST)?);
        let session = talk(&end, to, &mut room, &(Verb::Call, end.ep.name()))?;
        let line = Line {
            end,
            to,
            session,
            room: KBox::pin_init(new_mutex!(room), GFP_KERNEL)?,
        };
        Ok(Arc::new(line, GFP_KERNEL)?)
    }

    /// Asks for something, and waits for the answer. Sleeps.
    pub(super) fn ask<T: Word>(&self, verb: Verb, words: impl Word) -> Result<T> {
        let mut room = self.room.lock();
        talk(&self.end, self.to, &mut room, &(verb, self.session, words))
    }

    /// Tells whoever serves that this was all, and asks for nothing any more. Sleeps.
    pub(super) fn finish(&self) -> Result {
        let told = self.ask(Verb::Finish, ());
        *self.room.lock() = None;
        told
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        // Of a line that is broken all stays there until the servant ends.
        let _ = self.ask::<()>(Verb::Leave, ());
    }
}

/// Says something, and hears the answer.
fn talk<T: Word>(
    end: &End,
    to: Address,
    room: &mut Option<Memory>,
    question: &impl Word,
) -> Result<T> {
    let mut saying = Saying::new();
    question.say(&mut saying)?;
    let question = Memory::from_vec(saying.into_bytes()?);
    end.ep.recv(room.take().ok_or(EPIPE)?, ANSWER)?;
    end.ep.send(question, to, Options::default(), QUESTION)?;
    let mut answer = None;
    for _ in 0..2 {
        // It may itself wait for a connection.
        let done = end.cq.read_wait(2 * timeout())?;
        let len = done.result.map_err(|failure| failure.error)?.len;
        if done.context == ANSWER {
            answer = Some((done.buffer.into_memory().map_err(|_| EBADMSG)?, len));
        }
    }
    let (memory, len) = answer.ok_or(EBADMSG)?;
    let said = memory.as_slice().and_then(|bytes| bytes.get(..len));
    let answer = <Result<T>>::hear(&mut Heard::new(said.ok_or(EBADMSG)?));
    *room = Some(memory);
    answer?
}
