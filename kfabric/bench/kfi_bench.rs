// SPDX-License-Identifier: GPL-2.0

//! The bench: what operations cost, beside a plain copy of the same bytes.
//!
//! It measures what it is asked for through `/dev/kfi_bench`, and judges nothing. scripts/bench asks,
//! and makes a table of the answers: see Documentation/performance.rst.
//!
//! Within a host, on the first provider there is:
//!
//! | file | noun |
//! |---|---|
//! | `device` | the file: what may be asked |
//! | `rig` | two endpoints, and what they need |
//! | `load` | the buffers of one measurement, and the operations on them |
//! | `copies` | the same buffers, and plain copies between them |
//! | `sample` | one measurement |
//! | `kept` | objects that are made to be counted |
//!
//! Between two hosts, on the provider that is asked for; the folder `bare` has a module that does the
//! same without kfabric:
//!
//! | file | noun |
//! |---|---|
//! | `near` | the end that posts, and looks at the clock |
//! | `stream` | many operations at once |
//! | `far` | the end that serves |
//! | `end` | what both have: an endpoint |
//! | `word` | what they say to each other |
//! | `pattern` | what their buffers are filled with |

#![deny(unsafe_code, unused_must_use)]

use kernel::prelude::*;

mod copies;
mod device;
mod end;
mod far;
mod kept;
mod load;
mod near;
mod pattern;
mod rig;
mod sample;
mod stream;
mod word;

module! {
    type: Bench,
    name: "kfi_bench",
    authors: ["The kfabric developers"],
    description: "kfabric bench",
    license: "GPL",
}

struct Bench {
    _file: device::File,
}

impl kernel::Module for Bench {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        Ok(Bench {
            _file: device::File::new()?,
        })
    }
}
