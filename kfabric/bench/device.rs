// SPDX-License-Identifier: GPL-2.0

//! `/dev/kfi_bench`: a question is written, and its answer read, by who has the file open.
//!
//! - `time KIND LEN DEPTH TIMES`: the nanoseconds of TIMES rounds of DEPTH operations, and of as
//!   many copies.
//! - `parts KIND LEN BATCHES`: how many operations a batch has; of a batch, the nanoseconds of the
//!   clock, posts, completions and copies.
//! - `keep endpoint SLOTS`, `keep regions HOW-MANY`, `keep addresses ENTRIES`: nothing; what was
//!   made is there until the file is closed.
//!
//! KIND is `write`, `read` or `send`. These are of two endpoints here, of the first provider there is.
//!
//! - `serve PROVIDER SERVICE`: opens the endpoint of a service and does what a peer asks for, until
//!   none has asked for long, or a signal comes; both fail the write.
//! - `meet PROVIDER NODE SERVICE`: reaches such a one; no answer.
//! - `stream LEN DEPTH COUNT`: COUNT writes of LEN bytes to its memory, DEPTH at once.
//! - `load LEN DEPTH COUNT`: the same, of messages.
//! - `pingpong LEN COUNT`: messages of LEN bytes go there and come back.
//!
//! The last three are answered with operations, bytes in one direction, and nanoseconds, as the
//! questions to `/dev/kfi_bare` are. A question that can't be answered fails the write.

use crate::far;
use crate::kept::Kept;
use crate::near::Near;
use crate::rig::{Rig, DEPTH};
use crate::sample::{Parts, Times, BATCH};
use crate::stream::What;
use kernel::fmt;
use kernel::iov::{IovIterDest, IovIterSource};
use kernel::prelude::*;
use kernel::str::Formatter;
use kernel::sync::{new_mutex, Arc, Mutex};
use kernel::time::Delta;
use kfabric::prelude::*;

/// The most objects that are kept.
const KEPT: usize = 64;

/// The file in `/dev`, as long as it exists.
pub(crate) struct File {
    _registration: CharDeviceRegistration<Device>,
}

impl File {
    pub(crate) fn new() -> Result<Self> {
        Ok(File {
            _registration: CharDeviceRegistration::new(fmt!("kfi_bench"), Device)?,
        })
    }
}

struct Device;

/// What belongs to one open file.
#[pin_data]
struct Session {
    #[pin]
    state: Mutex<State>,
}

struct State {
    answer: Answer,
    // Before the rig, in which they are.
    kept: KVec<Kept>,
    /// Once it was asked for something.
    rig: Option<Rig>,
    /// Once it has met somebody.
    near: Option<Near>,
}

#[vtable]
impl CharDevice for Device {
    type File = Arc<Session>;

    fn open(&self) -> Result<Arc<Session>> {
        let state = State {
            answer: Answer::default(),
            kept: KVec::with_capacity(KEPT, GFP_KERNEL)?,
            rig: None,
            near: None,
        };
        let session = pin_init!(Session { state <- new_mutex!(state) });
        Arc::pin_init(session, GFP_KERNEL)
    }

    fn size(&self) -> u64 {
        0
    }

    /// The rest of the answer, wherever the file stands.
    fn read(&self, file: &Arc<Session>, _pos: u64, to: &mut IovIterDest<'_>) -> Result<usize> {
        let mut state = file.state.lock();
        let read = to.copy_to_iter(state.answer.rest());
        state.answer.at += read;
        Ok(read)
    }

    fn write(&self, file: &Arc<Session>, _pos: u64, from: &mut IovIterSource<'_>) -> Result<usize> {
        let mut bytes = [0; 64];
        let len = from.copy_from_iter(&mut bytes);
        let question = core::str::from_utf8(bytes.get(..len).ok_or(EINVAL)?).map_err(|_| EINVAL)?;
        file.state.lock().ask(question)?;
        Ok(len)
    }

    fn fsync(&self, _file: &Arc<Session>, _extent: Extent, _datasync: bool) -> Result {
        Ok(())
    }
}

impl State {
    fn ask(&mut self, question: &str) -> Result {
        self.answer = Answer::default();
        let mut words = question.split_ascii_whitespace();
        let mut word = || words.next().ok_or(EINVAL);
        match word()? {
            "serve" => far::serve(word()?, word()?),
            "meet" => {
                // One at a time.
                self.near = None;
                self.near = Some(Near::meet(word()?, word()?, word()?)?);
                Ok(())
            }
            "stream" => self.stream(What::Writes, words),
            "load" => self.stream(What::Messages, words),
            "pingpong" => {
                let (len, count) = (number(&mut words)?, number(&mut words)?);
                self.measure(len, count, |near| near.pingpong(len, count as u64))
            }
            "time" => self.time(word()?, words),
            "parts" => self.parts(word()?, words),
            "keep" => self.keep(word()?, words),
            _ => Err(EINVAL),
        }
    }

    fn stream<'a>(&mut self, what: What, mut words: impl Iterator<Item = &'a str>) -> Result {
        let mut next = || number(&mut words);
        let (len, depth, count) = (next()?, next()?, next()?);
        self.measure(len, count, |near| {
            near.stream(what, len, depth, count as u64)
        })
    }

    /// Measures between two hosts. What fails may have left operations under way, so the peer has to be met
    /// again.
    fn measure(
        &mut self,
        len: usize,
        count: usize,
        measure: impl FnOnce(&mut Near) -> Result<Delta>,
    ) -> Result {
        let mut near = self.near.take().ok_or(ENOTCONN)?;
        let took = measure(&mut near)?.as_nanos();
        self.near = Some(near);
        let bytes = count as u64 * len as u64;
        self.answer = Answer::new(fmt!("{count} {bytes} {took}\n"))?;
        Ok(())
    }

    fn time<'a>(&mut self, what: &str, mut words: impl Iterator<Item = &'a str>) -> Result {
        let mut next = || number(&mut words);
        let (len, depth, times) = (next()?, next()?, next()?);
        if depth == 0 || depth > DEPTH {
            return Err(EINVAL);
        }
        let kind = kind(what)?;
        let times = self.on_rig(|rig| Times::new(rig, kind, len, depth, times))?;
        let (operations, copies) = (times.operations.as_nanos(), times.copies.as_nanos());
        self.answer = Answer::new(fmt!("{operations} {copies}\n"))?;
        Ok(())
    }

    fn parts<'a>(&mut self, what: &str, mut words: impl Iterator<Item = &'a str>) -> Result {
        let (len, batches) = (number(&mut words)?, number(&mut words)?);
        let kind = kind(what)?;
        let Parts {
            clock,
            post,
            completion,
            copy,
        } = self.on_rig(|rig| Parts::new(rig, kind, len, batches))?;
        self.answer = Answer::new(fmt!("{BATCH} {clock} {post} {completion} {copy}\n"))?;
        Ok(())
    }

    fn keep<'a>(&mut self, what: &str, mut words: impl Iterator<Item = &'a str>) -> Result {
        let make = match what {
            "endpoint" => Kept::endpoint,
            "regions" => Kept::regions,
            "addresses" => Kept::addresses,
            _ => return Err(EINVAL),
        };
        let many = number(&mut words)?;
        let kept = make(self.rig()?, many)?;
        self.kept.push_within_capacity(kept).map_err(|_| ENOSPC)
    }

    fn rig(&mut self) -> Result<&Rig> {
        if self.rig.is_none() {
            self.rig = Some(Rig::new()?);
        }
        self.rig.as_ref().ok_or(EINVAL)
    }

    /// Measures on the rig. What fails may have left operations in it, so the next one is another.
    fn on_rig<T>(&mut self, measure: impl FnOnce(&Rig) -> Result<T>) -> Result<T> {
        let measured = measure(self.rig()?);
        if measured.is_err() {
            self.rig = None;
        }
        measured
    }
}

fn number<'a>(words: &mut impl Iterator<Item = &'a str>) -> Result<usize> {
    let word = words.next().ok_or(EINVAL)?;
    word.parse().map_err(|_| EINVAL)
}

fn kind(name: &str) -> Result<Kind> {
    [Kind::Write, Kind::Read, Kind::Send]
        .into_iter()
        .find(|kind| kind.name() == name)
        .ok_or(EINVAL)
}

/// A line, and how much of it was read.
struct Answer {
    line: [u8; 128],
    len: usize,
    at: usize,
}

impl Default for Answer {
    fn default() -> Self {
        Answer {
            line: [0; 128],
            len: 0,
            at: 0,
        }
    }
}

impl Answer {
    fn new(text: fmt::Arguments<'_>) -> Result<Self> {
        let mut answer = Answer::default();
        let mut out = Formatter::new(&mut answer.line);
        fmt::Write::write_fmt(&mut out, text).map_err(|_| EOVERFLOW)?;
        answer.len = out.bytes_written();
        Ok(answer)
    }

    fn rest(&self) -> &[u8] {
        self.line.get(self.at..self.len).unwrap_or(&[])
    }
}
