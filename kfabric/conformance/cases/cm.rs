// SPDX-License-Identifier: GPL-2.0

//! Connections: how they begin, what passes over them, and how they end.
//!
//! | file | noun |
//! |---|---|
//! | `connect` | how they begin |
//! | `traffic` | what passes over them |
//! | `end` | how they end |
//! | `events` | events, and their queue |
//! | `host` | what the endpoints of one side stand on |

pub(super) mod connect;
pub(super) mod end;
pub(super) mod events;
mod host;
pub(super) mod traffic;

pub(super) use host::{begin, send, Connected, Host};
