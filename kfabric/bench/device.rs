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
//! KIND is `write`, `read` or `send`. A question that can't be answered fails the write.

use crate::kept::Kept;
use crate::rig::{Rig, DEPTH};
use crate::sample::{Parts, Times, BATCH};
use kernel::fmt;
use kernel::iov::{IovIterDest, IovIterSource};
use kernel::prelude::*;
use kernel::str::Formatter;
use kernel::sync::{new_mutex, Arc, Mutex};
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
    rig: Rig,
}

#[vtable]
impl CharDevice for Device {
    type File = Arc<Session>;

    fn open(&self) -> Result<Arc<Session>> {
        let state = State {
            answer: Answer::default(),
            kept: KVec::with_capacity(KEPT, GFP_KERNEL)?,
            rig: Rig::new()?,
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
        let mut words = question.split_ascii_whitespace();
        let (asked, what) = (words.next().ok_or(EINVAL)?, words.next().ok_or(EINVAL)?);
        let mut number = || -> Result<usize> {
            let word = words.next().ok_or(EINVAL)?;
            word.parse().map_err(|_| EINVAL)
        };
        match asked {
            "time" => {
                let (len, depth, times) = (number()?, number()?, number()?);
                if depth == 0 || depth > DEPTH {
                    return Err(EINVAL);
                }
                let times = Times::new(&self.rig, kind(what)?, len, depth, times);
                let times = self.or_renew(times)?;
                let (operations, copies) = (times.operations.as_nanos(), times.copies.as_nanos());
                self.answer = Answer::new(fmt!("{operations} {copies}\n"))?;
            }
            "parts" => {
                let parts = Parts::new(&self.rig, kind(what)?, number()?, number()?);
                let Parts {
                    clock,
                    post,
                    completion,
                    copy,
                } = self.or_renew(parts)?;
                self.answer = Answer::new(fmt!("{BATCH} {clock} {post} {completion} {copy}\n"))?;
            }
            "keep" => {
                let make = match what {
                    "endpoint" => Kept::endpoint,
                    "regions" => Kept::regions,
                    "addresses" => Kept::addresses,
                    _ => return Err(EINVAL),
                };
                let kept = make(&self.rig, number()?)?;
                self.kept.push_within_capacity(kept).map_err(|_| ENOSPC)?;
            }
            _ => return Err(EINVAL),
        }
        Ok(())
    }

    /// A measurement that failed may have left operations in the rig, which is then replaced.
    fn or_renew<T>(&mut self, measured: Result<T>) -> Result<T> {
        if measured.is_err() {
            self.rig = Rig::new()?;
        }
        measured
    }
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
